"""The plug-in of the vLLM server without vLLM: which files it reads, and how they become weights."""

import sys
import types
from pathlib import Path

import pytest
import torch
from model_fixtures import tiny_policy
from safetensors.torch import save_file
from torch import nn

PLUGIN = Path(__file__).resolve().parents[2] / "servers" / "vllm" / "plugin"

WEIGHTS = {
    "model.embed_tokens.weight": torch.arange(6.0).reshape(3, 2),
    "model.norm.weight": torch.tensor([1.0, 2.0]),
    "model.layer.weight": torch.arange(4.0).reshape(2, 2),
}
SHAPES = {name: tuple(weight.shape) for name, weight in WEIGHTS.items()}


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.syspath_prepend(str(PLUGIN))
    import papo_vllm.parts

    return papo_vllm.parts


@pytest.fixture
def update(parts, tmp_path):
    return parts.WeightUpdate(tmp_path, SHAPES)


def write(folder, weights=WEIGHTS, version="run.1", total=2):
    names = [f"{version}-{n:05d}-of-{total:05d}.safetensors" for n in range(1, total + 1)]
    for place, name in enumerate(names):
        save_file(
            {k: w for i, (k, w) in enumerate(weights.items()) if i % total == place}, folder / name
        )
    return names


def test_all_weights_of_all_parts_come_out(update, tmp_path):
    for name in reversed(write(tmp_path)):
        update.add(name)
    update.require_whole()
    found = dict(update.tensors())
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], weight) for name, weight in WEIGHTS.items())
    assert torch.equal(update.tensor("model.norm.weight"), WEIGHTS["model.norm.weight"])


def test_what_is_loaded_is_what_was_checked(update, tmp_path):
    first, second = write(tmp_path)
    for name in (first, second):
        update.add(name)
    (tmp_path / first).unlink()
    save_file({"model.norm.weight": torch.full((2,), torch.nan)}, tmp_path / "other")
    (tmp_path / "other").replace(tmp_path / second)
    assert all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in update.tensors())


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "/etc/passwd",
        "../run.1-00001-of-00002.safetensors",
        "folder/run.1-00001-of-00002.safetensors",
        "..-00001-of-00002.safetensors",
        "run.1-00001-of-00002.safetensors\n",
        "run.1-00001-of-00002.safetensors\0",
        "run 1-00001-of-00002.safetensors",
        "run.1-1-of-2.safetensors",
        "run.1-00000-of-00002.safetensors",
        "run.1-00003-of-00002.safetensors",
        "run.1-٠٠٠٠١-of-00002.safetensors",
        "run.1-00001-of-00002.bin",
        "run.1-00001-of-00002.safetensors.unfinished",
        f"{'a' * 201}-00001-of-00002.safetensors",
    ],
)
def test_a_name_that_is_none_of_a_part_is_refused_unread(update, name, monkeypatch):
    monkeypatch.setattr(Path, "resolve", None)  # no path is made of it
    with pytest.raises(ValueError, match="part"):
        update.add(name)


def test_a_link_that_leads_out_of_the_folder_is_refused(parts, tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    first, second = write(outside)
    (inside / first).symlink_to(outside / first)
    (inside / second).mkdir()
    update = parts.WeightUpdate(inside, SHAPES)
    with pytest.raises(ValueError, match="leads out of it"):
        update.add(first)
    with pytest.raises(ValueError, match="no part"):
        update.add(second)


def test_a_file_of_any_other_length_is_damaged(update, tmp_path):
    first, _ = write(tmp_path)
    whole = (tmp_path / first).read_bytes()
    for content in (*(whole[:length] for length in range(len(whole))), whole + b"\0"):
        (tmp_path / first).write_bytes(content)
        with pytest.raises(ValueError, match=f"the part '{first}' is damaged"):
            update.add(first)
    (tmp_path / first).write_bytes(whole)
    update.add(first)


def test_a_refused_part_leaves_the_update_as_it_was(update, tmp_path):
    first, second = write(tmp_path)
    update.add(first)
    good = (tmp_path / second).read_bytes()
    save_file(
        {"model.norm.weight": WEIGHTS["model.norm.weight"], "x": torch.ones(1)}, tmp_path / second
    )
    with pytest.raises(ValueError, match="'x', no weight of this model"):
        update.add(second)
    (tmp_path / second).write_bytes(good)
    update.add(second)
    update.require_whole()


def test_a_part_belongs_to_the_update_that_was_begun_and_comes_once(update, tmp_path):
    first, _ = write(tmp_path)
    [other_version] = write(tmp_path, version="run.2", total=1)
    other_total = write(tmp_path, total=3)[2]
    update.add(first)
    for name in (other_version, other_total):
        with pytest.raises(ValueError, match=r"this update is 'run\.1' in 2 parts"):
            update.add(name)
    with pytest.raises(ValueError, match="once"):
        update.add(first)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"model.norm.weight": torch.ones(2)}, "holds model.norm.weight, and so does part 2"),
        ({"model.embed_tokens.weight": torch.ones(2, 3)}, r"shape \(2, 3\); here it is \(3, 2\)"),
        ({"lm_head.weight": torch.ones(3, 2)}, "'lm_head.weight', no weight of this model"),
    ],
)
def test_a_weight_that_does_not_fit_is_named(update, tmp_path, weights, reason):
    first, second = write(tmp_path)
    update.add(second)
    save_file(weights, tmp_path / first)
    with pytest.raises(ValueError, match=reason):
        update.add(first)


def test_what_is_missing_is_named(update, tmp_path):
    with pytest.raises(ValueError, match="got none"):
        update.require_whole()
    first, second = write(tmp_path)
    update.add(second)
    with pytest.raises(ValueError, match=r"has 2 parts; missing: 1$"):
        update.require_whole()
    save_file({"model.layer.weight": WEIGHTS["model.layer.weight"]}, tmp_path / first)
    update.add(first)
    with pytest.raises(ValueError, match=r"missing 1 of 3: model\.embed_tokens\.weight$"):
        update.require_whole()


# The engine, on stand-ins for what it takes from vLLM.


class Head(nn.Module):
    """A head that computes with a copy of its own, as vLLM's does on a CPU."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 2))
        self.weight.weight_loader = lambda weight, value: weight.data.copy_(value)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lm_head = Head()
        self.layer = nn.Linear(2, 2, bias=False)
        self.deaf = False

    def load_weights(self, weights):
        self.layer.weight.data.copy_(dict(weights)["model.layer.weight"])
        return set() if self.deaf else {"layer.weight"}

    def compute_logits(self):
        return "logits"


@pytest.fixture
def engine(monkeypatch, tmp_path):
    """Makes the engine of a model; `engine.calls` says what was done to it."""
    calls = []

    class Base:
        def __class_getitem__(cls, parameters):
            return cls

        def __init__(self, config, vllm_config, device, model):
            self.model_config, self.device, self.model = vllm_config, device, model

        def parse_update_info(self, update_info):
            return self.update_info_cls(**update_info)

    class Factory:
        _registry: dict = {}  # noqa: RUF012

        @classmethod
        def register_engine(cls, name, module, attribute):
            assert name not in cls._registry
            cls._registry[name] = (module, attribute)

    modules = {
        "vllm.distributed.weight_transfer.base": {
            "WeightTransferEngine": Base,
            "WeightTransferInitInfo": object,
            "WeightTransferUpdateInfo": object,
        },
        "vllm.distributed.weight_transfer.factory": {"WeightTransferEngineFactory": Factory},
        "vllm.model_executor.layers.vocab_parallel_embedding": {"ParallelLMHead": Head},
        "vllm.model_executor.model_loader.reload": {
            "initialize_layerwise_reload": lambda model: calls.append("begun"),
            "finalize_layerwise_reload": lambda model, config: calls.append("ended"),
        },
    }
    for name, attributes in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.delitem(sys.modules, "papo_vllm.engine", raising=False)
    monkeypatch.setenv("PAPO_WEIGHTS_FOLDER", str(tmp_path))
    import papo_vllm.engine

    def make(shapes=SHAPES):
        monkeypatch.setattr(papo_vllm.engine, "checkpoint_shapes", lambda config: dict(shapes))
        config = types.SimpleNamespace(hf_config=None)
        return papo_vllm.engine.FolderEngine(None, config, torch.device("cpu"), Model())

    make.calls = calls
    yield make
    sys.modules.pop("papo_vllm.engine", None)


def load(engine, names):
    engine.start_weight_update()
    for name in names:
        engine.update_weights({"name": name})
    engine.finish_weight_update()


def test_vllm_learns_of_the_engine_once_however_often_it_asks(engine):
    import papo_vllm
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    papo_vllm.register()
    papo_vllm.register()
    assert WeightTransferEngineFactory._registry == {
        "papo_folder": ("papo_vllm.engine", "FolderEngine")
    }


@pytest.mark.parametrize("folder", ["", "weights", "/no/such/folder", __file__])
def test_a_server_without_a_folder_does_not_start(engine, folder, monkeypatch):
    monkeypatch.setenv("PAPO_WEIGHTS_FOLDER", folder)
    with pytest.raises(ValueError, match="PAPO_WEIGHTS_FOLDER"):
        engine()


def test_a_trainer_may_compare_the_folder_and_not_move_it(engine, tmp_path):
    from papo_vllm.engine import FolderInit

    made = engine()
    made.init_transfer_engine(FolderInit())
    made.init_transfer_engine(FolderInit(folder=f"{tmp_path}/../{tmp_path.name}"))
    with pytest.raises(ValueError, match="fixed when it started"):
        made.init_transfer_engine(FolderInit(folder="/etc"))
    assert made.folder == tmp_path


def test_a_tied_head_gets_the_embeddings_too(engine, tmp_path):
    made = engine()
    load(made, write(tmp_path))
    assert torch.equal(made.model.lm_head.weight, WEIGHTS["model.embed_tokens.weight"])
    assert torch.equal(made.model.layer.weight, WEIGHTS["model.layer.weight"])
    assert made.model.compute_logits() == "logits"


def test_nothing_of_the_model_changes_before_the_update_is_whole(engine, tmp_path):
    made = engine()
    with pytest.raises(ValueError, match="missing: 2"):
        load(made, write(tmp_path)[:1])
    with pytest.raises(ValueError, match="a part is named"):
        load(made, ["../x"])
    assert engine.calls == []
    load(made, write(tmp_path))
    assert engine.calls == ["begun", "ended"]


def test_a_server_whose_weights_were_half_loaded_serves_no_more(engine, tmp_path):
    made = engine()
    made.model.deaf = True
    names = write(tmp_path)
    with pytest.raises(RuntimeError, match=r"1 parameters were not loaded: layer\.weight"):
        load(made, names)
    with pytest.raises(RuntimeError, match="failed half-way"):
        made.model.compute_logits()
    with pytest.raises(RuntimeError, match="restart the server"):
        load(made, names)


def test_a_parameter_is_missed_where_a_head_of_its_own_was_not_loaded(engine, tmp_path):
    weights = WEIGHTS | {"lm_head.weight": torch.ones(3, 2)}
    made = engine({name: tuple(weight.shape) for name, weight in weights.items()})
    with pytest.raises(RuntimeError, match=r"not loaded: lm_head\.weight"):
        load(made, write(tmp_path, weights))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_names_and_shapes_are_those_of_the_policy_that_is_trained(engine, family, monkeypatch):
    from papo_vllm.engine import checkpoint_shapes

    model = tiny_policy(family).model
    expected = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    assert "lm_head.weight" not in expected
    assert checkpoint_shapes(model.config) == expected
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    assert checkpoint_shapes(model.config).keys() - expected.keys() == {"lm_head.weight"}
