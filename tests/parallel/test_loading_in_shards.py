"""Ranks that each read their part of a model's files train what ranks do that load it whole and cut it."""

import pytest
from cases import SETTINGS, HashReward, Pictured, facts, sharding_of
from model_fixtures import saved_model
from pool import on_ranks

pytestmark = pytest.mark.dist


SIZES = {"hidden_size": 32, "intermediate_size": 32, "vision_hidden_size": 32}
LORA = {"language": {"r": 2, "alpha": 4, "targets": ["q_proj"]}, "vision": None}
HALF = {"half_precision": True}

FOLDERS = {
    "tied": {},
    "several": {"tied": False, "several": True, "new_names": False},
    "qwen3_vl": {"family": "qwen3_vl"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: saved_model(root / name, **SIZES, **how) for name, how in FOLDERS.items()}


def module_of(ranks, folder, *, in_files, shards, model=None, **settings):
    """A run on the model of a folder: read in parts, or loaded whole."""
    import torch
    from lab_module import lab_module
    from models.test_prompts_and_loading import LOAD

    from papo.models import load_policy

    torch.manual_seed(0)
    policy = load_policy(
        path=str(folder), leave_in_files=in_files, **LOAD | {"scoring": "split"} | (model or {})
    )
    assert (policy.unread_weights is not None) == in_files
    module = lab_module(
        folder.parent / f"run_{ranks.rank}",
        policy=policy,
        source=Pictured((1,)),
        reward=HashReward(),
        ranks=ranks,
        sharding=sharding_of(ranks, shards),
        **SETTINGS
        | {"num_rollouts": 1, "prompts_per_rollout": 4, "prompts_per_minibatch": 4, "beta": 0.05}
        | settings,
    )
    module.policy_module.make_optimizer = lambda parameters: torch.optim.AdamW(
        parameters, lr=1e-3, weight_decay=0.1
    )
    return module


def held(module):
    """Every bit that a rank has before the first rollout, and what is known of the whole."""
    from papo.parallel import local_tensor

    policy, reference = module.policy_module.policy, module.collector.reference
    copies = {"policy": policy} | ({"reference": reference.policy} if reference.is_copy else {})
    return (
        {
            f"{of} {name}": local_tensor(tensor.detach()).clone()
            for of, one in copies.items()
            for name, tensor in (
                *one.named_parameters(remove_duplicate=False),
                *one.named_buffers(),
            )
        },
        (module.base_fingerprint, reference.fingerprint),
    )


def same(one, other):
    import torch

    assert one[0].keys() == other[0].keys()
    assert {name for name, part in one[0].items() if part.dtype != other[0][name].dtype} == set()
    assert {n for n, part in one[0].items() if not torch.equal(part, other[0][n])} == set()
    assert one[1] == other[1]


def a_folder(parent, name):
    folder = parent / f"run_{name}"
    folder.mkdir(exist_ok=True)
    return folder


def parts_and_training(ranks, folders, shards):
    """Compares what ranks read with what they cut, and one training step from each."""
    from lab_module import train

    cases = {
        "tied": {"shards": shards},
        "several": {"shards": shards | HALF},
        "qwen3_vl": {"shards": shards | HALF, "model": {"freeze_vision": True}},
    }
    cases["adapters"] = {"shards": shards, "model": {"lora": LORA}}
    trained = {}
    for name, settings in cases.items():
        folder = folders.get(name, folders["tied"])
        made = []
        for in_files in (True, False):
            module = module_of(ranks, folder, in_files=in_files, **settings)
            module.configure_model()
            made.append(module)
        read, cut = made
        same(held(read), held(cut))
        head = read.policy_module.policy.model
        tied = head.lm_head.weight is head.model.language_model.embed_tokens.weight
        assert tied == (name != "several")
        if name != "tied":
            continue
        for module in made:
            train(module, a_folder(folder.parent, ranks.rank))
        same(held(read), held(cut))
        assert read.last_step.metrics == cut.last_step.metrics
        trained[name] = facts(read, read.last_step)
    return trained


@pytest.mark.parametrize(("size", "shards"), [(2, {}), (3, {}), (4, {"shard_size": 2})])
def test_ranks_read_and_train_what_they_would_have_cut(size, shards, folders):
    from lab_module import train
    from test_replicas import largest_difference

    from papo.parallel import Ranks

    found = on_ranks(parts_and_training, folders, shards, size=size)
    if size != 2:
        return
    alone = module_of(Ranks(), folders["tied"], in_files=False, shards=None)
    train(alone, a_folder(folders["tied"].parent, "alone"))
    alone = facts(alone, alone.last_step)
    for mine in found:
        assert mine["tied"]["texts"] == alone["texts"]
        assert largest_difference(mine["tied"]["weights"], alone["weights"]) <= 1e-4


class Live:
    """Counts the bytes of all tensors with memory that PyTorch sees while a rank works, and their most at once."""

    def __init__(self):
        self.storages, self.total, self.peak = {}, 0, 0

    def note(self, tensors):
        from torch.distributed.tensor import DTensor
        from torch.multiprocessing.reductions import StorageWeakRef

        for tensor in tensors:
            tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            if not tensor.is_meta:
                storage = tensor.untyped_storage()
                _, before = self.storages.get(storage._cdata, (None, 0))
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                self.total += storage.nbytes() - before
        if self.total > self.peak:
            self.forget()
            self.peak = max(self.peak, self.total)

    def forget(self):
        """Looks at what is gone, or was made smaller, as FSDP frees what it has gathered."""
        import torch

        there = {}
        for key, (reference, _) in self.storages.items():
            storage = torch.UntypedStorage._new_with_weak_ptr(reference.cdata)
            if storage is not None:
                there[key] = (reference, storage.nbytes())
        self.storages, self.total = there, sum(size for _, size in there.values())

    def during(self, work):
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_leaves

        live = self

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
                result = function(*arguments, **(keywords or {}))
                leaves = tree_leaves([arguments, keywords, result])
                with torch.utils._python_dispatch._disable_current_modes():
                    live.note(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
                return result

        with Mode():
            work()
        return self.peak


def peaks(ranks, model, other):
    """What a rank holds at most while it takes its part, by how the model is loaded; and ranks of two models."""
    from papo.models.weight_files import WeightFiles
    from papo.parallel import RanksDiffer, local_tensor

    found, read = {}, []
    original = WeightFiles.read

    def counted(self, *arguments):
        rows = original(self, *arguments)
        read.append(rows.nbytes)
        return rows

    def padded(parameter, parts):
        """Bytes of so many parts, as long as the longest."""
        return (
            parts
            * -(-parameter.shape[0] // ranks.size)
            * parameter[0].numel()
            * parameter.element_size()
        )

    WeightFiles.read = counted
    for in_files in (True, False):
        module = module_of(ranks, model, in_files=in_files, shards=HALF)
        policy = module.policy_module.policy
        whole = sum(p.nbytes for p in policy.parameters())
        layers = [set(unit.parameters()) for unit in policy.shard_units()]
        rest = set(policy.parameters()).difference(*layers)
        largest = max(sum(padded(p, ranks.size) for p in unit) for unit in (*layers, rest))
        found[in_files] = Live().during(module.configure_model)
    copies = (policy, module.collector.reference.policy)
    part = sum(padded(p, 1) for one in copies for p in one.parameters())
    part += sum(buffer.nbytes for one in copies for buffer in one.buffers())
    assert sum(read) == sum(local_tensor(p).nbytes for p in policy.parameters())

    module = module_of(ranks, other if ranks.rank else model, in_files=True, shards={})
    with pytest.raises(RanksDiffer, match="files of the model") as caught:
        module.configure_model()
    assert "give all the same files" in str(caught.value)
    return found, whole, part + largest


def test_no_rank_ever_holds_more_than_its_part_and_one_layer(tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    # Whole weights are far more than a part and the largest layer.
    model = saved_model(tmp_path / "model", num_layers=8, vision_hidden_size=32)
    other = tmp_path / "other"
    shutil.copytree(model, other)
    weights = {name: value + 1 for name, value in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    for found, whole, allowed in on_ranks(peaks, model, other, size=3):
        assert found[True] <= allowed < 0.9 * whole
        # What is seen while whole weights are cut, for comparison.
        assert found[False] > whole


def test_sums_of_rows_are_those_of_the_whole_and_two_readers_must_agree():
    import torch

    from papo.parallel import Ranks, RanksDiffer
    from papo.training.base_weights import SumsOfRows, fingerprint

    generator = torch.Generator().manual_seed(0)
    weights = {
        "float32": torch.randn(7, 3, generator=generator),
        "float64": torch.randn(5, generator=generator, dtype=torch.float64),
    }

    def noted(parts, changed=0.0):
        rows = SumsOfRows(lambda name, start, stop: weights[name][start:stop] + changed)
        for name, (start, stop) in parts.items():
            rows.read(name, start, stop)
        return rows

    mine = noted({"float32": (0, 4), "float64": (0, 5)})

    def of_both(theirs):
        ranks = Ranks()
        ranks.gather = lambda value: [value, theirs._noted]
        return mine.of_whole(ranks)

    sums = of_both(noted({"float32": (4, 7), "float64": (5, 5)}))
    assert fingerprint(weights, sums) == fingerprint(weights)
    assert sums == of_both(noted({"float32": (4, 7), "float64": (0, 5)}))
    with pytest.raises(
        RanksDiffer, match=r"rank 1 has others than an earlier one in rows 0 to 5 of"
    ):
        of_both(noted({"float32": (4, 7), "float64": (0, 5)}, changed=1.0))


def resumed(ranks, folder, model, settings, first=None):
    """Trains two rollouts with a checkpoint each, or goes on after the first of another run."""
    from lab_module import train

    from papo.training.checkpoints import RolloutCheckpoint, checkpoint_path

    in_files = ranks.size > 1
    module = module_of(ranks, model, in_files=in_files, shards={}, model=settings, num_rollouts=2)
    checkpoint = None if first is None else checkpoint_path(folder / "checkpoints", first)
    train(module, folder, RolloutCheckpoint(every_rollouts=1, keep_last=3), checkpoint=checkpoint)
    return facts(module, module.last_step)


def from_a_file(ranks, alone, model):
    """Goes on from files of one process; writes folders."""
    return [resumed(ranks, alone[name], model, how, 1) for name, how in RESUMED.items()]


RESUMED = {"all weights": {}, "adapters": {"lora": LORA}}


def test_ranks_go_on_from_a_run_that_loaded_whole_and_the_other_way(folders, tmp_path):
    from test_replicas import largest_difference

    from papo.parallel import Ranks
    from papo.training import load_trained_policy, read_checkpoint

    model, alone, ends = folders["tied"], {}, []
    for name, how in RESUMED.items():
        alone[name] = tmp_path / name
        alone[name].mkdir()
        ends.append(resumed(Ranks(), alone[name], model, how))
        assert (alone[name] / "checkpoints/rollout_000001.ckpt").is_file()
    for together in on_ranks(from_a_file, alone, model):
        for mine, end in zip(together, ends, strict=True):
            assert mine["texts"] == end["texts"]
            assert largest_difference(mine["weights"], end["weights"]) <= 1e-4
    for (name, how), end in zip(RESUMED.items(), ends, strict=True):
        checkpoint = alone[name] / "checkpoints/rollout_000002.ckpt"
        assert checkpoint.is_dir()
        module = module_of(Ranks(), model, in_files=False, shards=None, model=how)
        policy = module.policy_module.policy
        load_trained_policy(policy, read_checkpoint(checkpoint))
        again = {name: p.detach().numpy() for name, p in policy.named_parameters()}
        assert largest_difference(again, end["weights"]) <= 1e-4


def commanded(ranks, arguments):
    """`train.py` on the lab's model, where nothing may load it whole."""
    from commands import command

    def prepare(door, ranks):
        from papo.models import loading

        class Refusing:
            @staticmethod
            def from_pretrained(*arguments, **settings):
                raise AssertionError("loaded whole")

        loading.AutoModelForImageTextToText = Refusing

    return command(ranks, "train", arguments, prepare)


def test_the_command_reads_parts_alone_and_evaluates_before_and_after(tmp_path):
    import json

    from commands import TRAINING

    arguments = [
        *TRAINING,
        f"run_dir={tmp_path / 'run'}",
        "trainer=sharded",
        "trainer.accelerator=cpu",
        "trainer.precision=32-true",
        *("benchmark=lab", "validation.every_rollouts=2"),
    ]
    (code, out, said), other = on_ranks(commanded, arguments)
    assert (code, other) == (0, (0, "", "")), said
    assert "Everything is in" in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "finished"
    assert set(result["evaluation"]) == {"before", "after"}
    assert result["best"]["rollout_step"] == 2
    steps = [
        json.loads(line)["rollout_step"]
        for line in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    ]
    assert steps == [0, 2, 3]
