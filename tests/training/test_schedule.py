"""The learning rate over a run, and which weights decay."""

import csv
import math
from functools import partial

import pytest
import torch
from lab_module import lab_module, train


def schedule(**changes):
    from papo.training import LearningRateSchedule

    return LearningRateSchedule(
        **{"decay": "none", "warmup_updates": 0, "final_share": 0.0, **changes}
    )


def shares(num_updates, **changes):
    return [schedule(**changes).share(update, num_updates) for update in range(num_updates)]


def test_without_warm_up_and_decay_the_rate_is_that_of_the_optimizer():
    assert shares(4) == [1.0] * 4


def test_a_warm_up_rises_in_equal_steps_from_the_first_update_on():
    assert shares(6, warmup_updates=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_line_falls_by_the_same_in_every_update():
    # 6 updates of which 2 warm up: 4 steps from 1 to 0.2, each of them 0.2.
    got = shares(6, decay="linear", warmup_updates=2, final_share=0.2)
    assert got == pytest.approx([0.5, 1.0, 1.0, 0.8, 0.6, 0.4])


def test_a_cosine_is_half_way_in_the_middle():
    got = shares(4, decay="cosine")
    assert got == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    assert shares(4, decay="cosine", final_share=0.5)[2] == pytest.approx(0.75)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_it_agrees_with_the_schedules_of_transformers_after_the_warm_up(decay):
    from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    make = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = make[decay](optimizer, num_warmup_steps=3, num_training_steps=10)
    found = []
    for _ in range(10):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert shares(10, decay=decay, warmup_updates=3)[3:] == pytest.approx(found[3:], rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay": "step"}, "schedule.decay"),
        ({"warmup_updates": -1}, "schedule.warmup_updates"),
        ({"warmup_updates": True}, "schedule.warmup_updates"),
        ({"final_share": 1.5}, "schedule.final_share"),
        ({"final_share": math.nan}, "schedule.final_share"),
    ],
)
def test_impossible_settings_are_refused_with_their_key(changes, message):
    with pytest.raises(ValueError) as refusal:
        schedule(**changes)
    assert message in str(refusal.value)


def test_a_warm_up_that_outlasts_the_run_is_refused():
    schedule(warmup_updates=5).check_length(5)
    with pytest.raises(ValueError, match=r"schedule\.warmup_updates=6"):
        schedule(warmup_updates=6).check_length(5)


def rates(folder, **changes):
    folder.mkdir()
    module = lab_module(
        folder, num_rollouts=3, prompts_per_rollout=4, prompts_per_minibatch=2,
        prompts_per_microbatch=2, learning_rate=0.5,
    )  # fmt: skip
    module.policy_module.schedule = schedule(**changes)
    train(module, folder)
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["update/learning_rate"]) for row in csv.DictReader(file)]


def test_every_update_is_made_with_its_rate_and_the_last_of_a_rollout_is_logged(tmp_path):
    # Three rollouts of two updates.
    assert rates(tmp_path / "run", decay="linear", warmup_updates=2) == [
        pytest.approx(0.5 * share) for share in (1.0, 0.75, 0.25)
    ]


def test_a_resumed_run_goes_on_with_the_rate_of_the_whole_one(tmp_path):
    from papo.training import RolloutCheckpoint

    rows = {}
    for name in ("whole", "run"):
        folder = tmp_path / name
        folder.mkdir()
        for checkpoint in (None,) if name == "whole" else (None, "rollout_000001.ckpt"):
            module = lab_module(
                folder, num_rollouts=3, prompts_per_rollout=2, prompts_per_minibatch=2,
                prompts_per_microbatch=2,
            )  # fmt: skip
            module.policy_module.make_optimizer = partial(torch.optim.AdamW, lr=1e-3)
            module.policy_module.weight_decay_of = "matrices"
            module.policy_module.schedule = schedule(decay="cosine", warmup_updates=1)
            path = checkpoint and folder / "checkpoints" / checkpoint
            train(
                module, folder, RolloutCheckpoint(every_rollouts=1, keep_last=9), checkpoint=path
            )  # fmt: skip
            if name == "run" and checkpoint is None:
                (folder / "metrics.csv").unlink()
        rows[name] = (folder / "metrics.csv").read_text().splitlines()
    # The header and the two rollouts after the checkpoint.
    assert rows["run"] == [rows["whole"][0], *rows["whole"][2:]]


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(4, 3)
        self.linear = torch.nn.Linear(3, 3)
        self.norm = torch.nn.LayerNorm(3)
        self.head = torch.nn.Linear(3, 4, bias=False)
        self.frozen = torch.nn.Linear(3, 3).requires_grad_(False)


def test_matrices_alone_decay_and_a_tied_head_is_an_embedding():
    from papo.training.policy import decaying

    untied, tied = Small(), Small()
    tied.head.weight = tied.embed.weight
    for policy, decay in (
        (untied, {"linear.weight", "head.weight"}),
        (tied, {"linear.weight"}),
    ):
        names = {id(p): name for name, p in policy.named_parameters()}
        matrices, others = decaying(policy)
        assert {names[id(p)] for p in matrices} == decay
        trained = {name for name, p in policy.named_parameters() if p.requires_grad}
        assert {names[id(p)] for p in others} == trained - decay


def test_what_is_spared_stays_where_it_is_without_a_gradient():
    from papo.training import PolicyModule

    module = PolicyModule(
        policy=Small(),
        make_optimizer=partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5),
        weight_decay_of="matrices",
    )
    optimizer = module.configure_optimizers()
    before = {name: p.detach().clone() for name, p in module.policy.named_parameters()}
    for parameter in module.policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {n for n, p in module.policy.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"linear.weight", "head.weight"}


def test_an_optimizer_that_takes_matrices_alone_says_what_to_train():
    from papo.training import PolicyModule, try_optimizer

    muon = partial(torch.optim.Muon, lr=0.1)
    try_optimizer(muon)
    with pytest.raises(ValueError, match=r"\+model/lora=language"):
        PolicyModule(policy=Small(), make_optimizer=muon).configure_optimizers()
    optimizer = PolicyModule(
        policy=torch.nn.Linear(3, 3, bias=False), make_optimizer=muon
    ).configure_optimizers()
    assert len(optimizer.param_groups) == 1


def test_a_decay_that_an_optimizer_does_not_have_is_refused():
    from papo.training import check_weight_decay_of

    assert check_weight_decay_of("matrices", {"weight_decay": 0.1}) == "matrices"
    with pytest.raises(ValueError, match=r"optimizer\.weight_decay_of is one of all, matrices"):
        check_weight_decay_of("some", {"weight_decay": 0.1})
    with pytest.raises(ValueError, match="without a weight decay"):
        check_weight_decay_of("matrices", {"lr": 0.1})
