"""The gradients of the terms, measured while a run trains: they are what they say and change nothing of it."""

import csv
import json
import logging
import math

import pytest
import torch
from lab_module import MASK, NUM_RESPONSES, lab_module, lab_policy, reward_by_row, train

ALL = {"gamma": 0.1, "eta_full": 0.1, "eta_masked": 0.1, "beta": 0.01, "masked_policy": "current"}
LIVE = {**ALL, "num_rollouts": 2}


def measuring(**settings):
    from papo.training.callbacks import TermGradients

    return TermGradients(**{"every_updates": 1, "prompts": 2, "on_fault": "warn", **settings})


def run(folder, *callbacks, checkpoint=None, **settings):
    """Returns the trained parameters and the rows of metrics.csv."""
    folder.mkdir(exist_ok=True)
    settings = {"reward": reward_by_row(NUM_RESPONSES), **LIVE, **settings}
    trained = train(lab_module(folder, **settings), folder, *callbacks, checkpoint=checkpoint)
    rows = list(csv.DictReader((folder / "metrics.csv").read_text("utf-8").splitlines()))
    return trained, rows


def faults(folder):
    file = folder / "faults.jsonl"
    if not file.exists():
        return {}
    return {
        row["key"]: row["says"] for row in map(json.loads, file.read_text("utf-8").splitlines())
    }


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prompts_per_minibatch": 2, "prompts_per_microbatch": 1},
        {"perception_estimator": "exact", "entropy": "exact"},
        {"masked_policy": "old"},
        {"model": {"freeze_vision": True}},
        {"model": {"gradient_checkpointing": True}},
    ],
    ids=["one pass", "accumulated", "exact", "old view", "frozen tower", "recomputed"],
)
def test_a_run_that_measures_is_the_same_to_the_bit(settings, tmp_path):
    found = []
    for name, callbacks in (("plain", ()), ("measured", (measuring(),))):
        policy = lab_policy(**settings.get("model", {}))
        own = {key: value for key, value in settings.items() if key != "model"}
        torch.manual_seed(5)
        found.append(run(tmp_path / name, *callbacks, policy=policy, **own))
        found[-1] += (torch.get_rng_state(),)
    (plain, rows, state), (measured, measured_rows, measured_state) = found
    assert all(torch.equal(plain[name], measured[name]) for name in plain)
    assert torch.equal(state, measured_state)
    assert [{name: row[name] for name in rows[0]} for row in measured_rows] == rows
    assert all(float(row["gradient/perception_kl/norm"]) > 0 for row in measured_rows)
    # Of a frozen tower there is nothing to say.
    assert ("gradient/perception_kl/norm_vision" in measured_rows[0]) is not policy.freeze_vision


def test_what_is_measured_leaves_no_feature_of_a_frozen_tower_behind(tmp_path):
    """A picture that is read among others has other last bits: the update reads the masked ones together."""
    policy, callback = lab_policy(freeze_vision=True), measuring()
    original, sizes = callback._measure, []

    def counted(*arguments):
        before = len(policy.reader.vision_cache)
        original(*arguments)
        sizes.append((before, len(policy.reader.vision_cache)))

    callback._measure = counted
    run(tmp_path / "run", callback, policy=policy, num_rollouts=1)
    [(before, after)] = sizes
    assert before == after > 0


def test_what_an_objective_draws_while_it_is_measured_is_drawn_again(tmp_path):
    from lab_module import lab_objective

    from papo.objective import Objective

    class Draws(Objective):
        def __call__(self, *arguments, **named):
            torch.rand(3)
            return super().__call__(*arguments, **named)

    states = []
    for name, callbacks in (("plain", ()), ("measured", (measuring(),))):
        torch.manual_seed(5)
        objective = Draws(terms=lab_objective(**ALL).terms, count_epsilon=0.0)
        run(tmp_path / name, *callbacks, objective=objective, num_rollouts=1)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_norms_and_cosines_are_those_of_each_terms_own_gradient(tmp_path):
    """Against autograd over the same prompts, part by part; the whole minibatch is one pass here."""
    module = lab_module(tmp_path, reward=reward_by_row(NUM_RESPONSES), **{**ALL, "num_rollouts": 1})
    policy, objective = module.policy_module.policy, module.objective
    # Away from the reference, where its KL has a gradient.
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.01)
    seen = {}

    def before(rollout, part):
        scores = module._score(part)
        terms = objective(part, scores, minibatch=part, progress=0.0)
        parameters = dict(policy.named_parameters())
        for name, weight in objective.weights(0.0).items():
            grads = torch.autograd.grad(
                weight * terms[name], list(parameters.values()), retain_graph=True
            )
            seen[name] = dict(zip(parameters, grads, strict=True))

    callback = measuring(prompts=4)
    original = callback._measure
    callback._measure = lambda trainer, module, rollout, part: (
        before(rollout, part),
        original(trainer, module, rollout, part),
    )
    train(module, tmp_path, callback)
    metrics = module.last_step.metrics

    def norm(gradients):
        return math.sqrt(sum(float(each.double().square().sum()) for each in gradients))

    for name, gradients in seen.items():
        parts = {"language": [], "vision": [], "head": []}
        for key, each in gradients.items():
            is_head = "lm_head" in key or "embed_tokens" in key
            parts["head" if is_head else "vision" if "visual" in key else "language"].append(each)
        for part, found in parts.items():
            got = metrics[f"gradient/{name}/norm_{part}"]
            assert got == pytest.approx(norm(found), rel=1e-3)
            assert found
        whole = norm(gradients.values())
        assert metrics[f"gradient/{name}/norm"] == pytest.approx(whole, rel=1e-3)
        product = sum(
            float((each.double() * seen["surrogate"][key].double()).sum())
            for key, each in gradients.items()
        )
        cosine = product / whole / norm(seen["surrogate"].values())
        assert metrics[f"gradient/{name}/cosine"] == pytest.approx(cosine, abs=1e-3)


def test_it_measures_every_so_many_updates_and_says_no_number_between(tmp_path):
    _, rows = run(tmp_path / "run", measuring(every_updates=2), num_rollouts=3)
    norms = [float(row["gradient/surrogate/norm"]) for row in rows]
    assert [math.isnan(norm) for norm in norms] == [False, True, False]


def test_it_measures_one_pass_of_the_minibatch_and_no_more_prompts_than_it_is_told(tmp_path):
    from papo.training.callbacks import term_gradients

    sizes = []
    original = term_gradients.measure_terms

    def noted(policy, objective, part, **how):
        sizes.append(len(part.groups))
        return original(policy, objective, part, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(term_gradients, "measure_terms", noted)
        run(tmp_path / "two", measuring(), num_rollouts=1)
        run(tmp_path / "one", measuring(), num_rollouts=1, prompts_per_microbatch=1)
    assert sizes == [2, 1]


def test_it_measures_prompts_whose_responses_differ_in_reward(tmp_path):
    from papo.types import Rewards

    def reward(problems, texts):
        # Of four prompts the first three earn alike.
        total = (torch.arange(len(texts)) == len(texts) - 1).float()
        return Rewards(total=total, correct=total > 0)

    _, rows = run(tmp_path / "run", measuring(prompts=1), reward=reward, num_rollouts=1)
    assert float(rows[0]["gradient/surrogate/norm"]) > 0


def test_a_resumed_run_keeps_its_columns_whatever_is_asked_for_now(tmp_path):
    from papo.training import RolloutCheckpoint, newest_checkpoint

    def saved():
        return RolloutCheckpoint(every_rollouts=1, keep_last=1)

    run(tmp_path / "on", measuring(), saved(), num_rollouts=1)
    run(tmp_path / "off", measuring(every_updates=0), saved(), num_rollouts=1)
    for name, now, is_measured in (("on", 0, False), ("off", 1, False)):
        folder = tmp_path / name
        _, rows = run(
            folder,
            measuring(every_updates=now),
            saved(),
            num_rollouts=2,
            checkpoint=newest_checkpoint(folder / "checkpoints"),
        )
        assert len(rows) == 2
        norm = float(rows[1].get("gradient/surrogate/norm", "nan"))
        assert math.isnan(norm) is not is_measured


def test_where_memory_runs_out_the_run_goes_on_without_the_measure(tmp_path, monkeypatch, caplog):
    from papo.training.callbacks import term_gradients

    def fail(*arguments, **how):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(term_gradients, "measure_terms", fail)
    with caplog.at_level(logging.WARNING):
        _, rows = run(tmp_path / "run", measuring(), num_rollouts=1)
    assert math.isnan(float(rows[0]["gradient/surrogate/norm"]))
    assert "out of memory while the terms were measured" in caplog.text


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"every_updates": -1}, "every_updates is 0 or more; got -1"),
        ({"prompts": 0}, "prompts is 1 or more; got 0"),
        ({"on_fault": "shout"}, "on_fault is warn or stop; got 'shout'"),
    ],
)
def test_what_it_refuses_names_the_key(setting, said):
    with pytest.raises(ValueError, match=rf"callbacks\.term_gradients\.{said}"):
        measuring(**setting)


# --- what cannot be right ------------------------------------------------------------------------


def test_a_sound_run_is_not_accused(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run(tmp_path / "run", measuring(on_fault="stop"), num_rollouts=2)
    assert not faults(tmp_path / "run")
    assert not caplog.records


def test_a_constant_entropy_is_said_once_with_its_key(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run(tmp_path / "run", measuring(), masked_policy="old", num_rollouts=2)
    assert faults(tmp_path / "run").keys() == {"objective.terms.masked_entropy"}
    assert caplog.text.count("objective.terms.masked_entropy: has a weight and no gradient") == 1


def test_a_run_that_should_stop_stops_before_its_first_update(tmp_path):
    module = lab_module(tmp_path, **{**LIVE, "masked_policy": "old"})
    before = {
        name: each.detach().clone() for name, each in module.policy_module.policy.named_parameters()
    }
    with pytest.raises(ValueError, match=r"objective\.terms\.masked_entropy: .*on_fault=warn"):
        train(module, tmp_path, measuring(on_fault="stop"))
    assert module.update_step == 0
    after = dict(module.policy_module.policy.named_parameters())
    assert all(torch.equal(after[name], before[name]) for name in before)


class OfPictures:
    """TRL's patch mask: it knows (batch, channel, height, width), and patches in rows pass it untouched."""

    def __call__(self, group, generator, process_images):
        masked = group.patches.clone()
        if masked.ndim == 4:
            masked[:, :, ::2] = 0
        return masked


def test_a_mask_that_masks_nothing_is_refused_or_named(tmp_path):
    with pytest.raises(ValueError, match="masked view differs from the image in at least one"):
        run(tmp_path / "masked", measuring(), image_mask=OfPictures())
    # A view that does not say that it hides something is caught by what the model makes of it.
    from papo.masking import RandomPatchMask
    from papo.views import MaskedView

    for mask, accused in ((OfPictures(), True), (RandomPatchMask(**MASK), False)):
        folder = tmp_path / type(mask).__name__
        view = MaskedView(mask=mask, hides=False)
        run(folder, measuring(), objective=looking_at("own"), views={"own": view}, num_rollouts=1)
        assert ("objective.views.own" in faults(folder)) is accused


def looking_at(view, policy="old"):
    from lab_module import lab_objective

    from papo.objective import Objective, ViewKL

    kl = ViewKL(weight=0.1, direction="raise", view=view, policy=policy, estimator="k3")
    return Objective(terms={**lab_objective().terms, "own": kl}, count_epsilon=0.0)


def test_a_view_that_does_not_reach_the_model_is_named(tmp_path, monkeypatch):
    from papo.models import VisionLanguagePolicy
    from papo.types import IMAGE

    original = VisionLanguagePolicy.score

    def blind(self, *of_responses, views=(IMAGE,), **how):
        seen = original(self, *of_responses, views=(IMAGE,), **how)[IMAGE]
        return dict.fromkeys(views, seen)

    monkeypatch.setattr(VisionLanguagePolicy, "score", blind)
    run(tmp_path / "run", measuring(), num_rollouts=1)
    assert "every token" in faults(tmp_path / "run")["masking"]


@pytest.mark.parametrize(
    ("scope", "least", "accused"),
    [("response", 0.9, True), ("minibatch", 0.9, False), ("response", 1.0, False)],
)
def test_a_factor_that_is_1_everywhere_is_named(scope, least, accused, tmp_path):
    """VPPO's code takes its statistics over a micro-batch: with one response in it, every factor is 1."""
    from lab_module import lab_objective

    from papo.methods import VPPO
    from papo.objective import Objective

    credit = VPPO(view="masked", top_share=0.4, least=least, scope=scope, mean_scope=scope)
    objective = Objective(
        terms=lab_objective(gamma=0.0, eta_full=0.0, eta_masked=0.0).terms,
        count_epsilon=0.0,
        credits={"vppo": credit},
    )
    run(tmp_path / "run", measuring(), objective=objective, num_rollouts=1)
    assert ("objective.credits.vppo" in faults(tmp_path / "run")) is accused


def test_a_rollout_without_a_picture_is_named():
    from papo.training.callbacks.term_gradients import faults_of_pictures
    from papo.training.draft import DrawnPrompt

    def prompt(has_picture):
        where = {"position": 0, "round_index": 0, "index": 0, "num_tokens": 5, "group": None}
        return DrawnPrompt(**where, changed={}, has_picture=has_picture)

    blind, seeing = prompt(False), prompt(True)
    assert "no prompt of the rollout" in faults_of_pictures(["masked"], [blind, blind])["data"]
    assert not faults_of_pictures(["masked"], [blind, seeing])
    assert not faults_of_pictures([], [blind])


def test_a_term_that_chooses_no_token_is_named():
    from papo.training.callbacks.term_gradients import faults_of_choices

    assert "objective.terms.one" in faults_of_choices({"one": torch.zeros(2, 3)})
    assert not faults_of_choices({"one": torch.eye(3)})
