"""A model whose weights stay in their files is the one that transformers loads; faults name file and key."""

import json
import logging

import pytest
import torch
from model_fixtures import saved_model
from models.test_prompts_and_loading import LOAD
from safetensors.torch import load_file, save_file

from papo.models import load_policy

LORA = {"language": {"r": 2, "alpha": 4, "targets": ["q_proj"]}, "vision": None}

FOLDERS = {
    "tied": {},
    "untied, several files": {"tied": False, "several": True},
    "the model's own names": {"new_names": True},
    "qwen3_vl": {"family": "qwen3_vl"},
    "qwen3_vl, untied": {"family": "qwen3_vl", "tied": False},
}


def both(folder, **settings):
    """The policy as transformers loads it, and the one whose weights are still in the files."""
    for leave_in_files in (False, True):
        torch.manual_seed(3)
        yield load_policy(
            path=str(folder),
            leave_in_files=leave_in_files,
            **{**LOAD, "freeze_vision": False} | settings,
        )


def rows(policy, name, parameter):
    """A parameter, read in two pieces."""
    if not parameter.is_meta:
        return parameter
    half = parameter.shape[0] // 2
    pieces = [(0, half), (half, half), (half, parameter.shape[0])]
    return torch.cat([policy.read_weight(name, *piece) for piece in pieces])


@pytest.mark.parametrize(
    ("case", "dtype"), [*((case, "float32") for case in FOLDERS), ("tied", "bfloat16")]
)
def test_what_is_read_in_rows_is_what_transformers_loads(case, dtype, tmp_path):
    whole, unread = both(saved_model(tmp_path / "model", **FOLDERS[case]), dtype=dtype)
    theirs = dict(whole.named_parameters(remove_duplicate=False))
    ours = dict(unread.named_parameters(remove_duplicate=False))
    assert list(ours) == list(theirs)
    assert all(parameter.is_meta for parameter in ours.values())
    assert len(set(ours.values())) == len(set(theirs.values()))
    for name, parameter in theirs.items():
        found = rows(unread, name, ours[name])
        assert found.dtype == parameter.dtype
        assert torch.equal(found, parameter)
    buffers = dict(whole.named_buffers())
    assert buffers
    for name, buffer in unread.named_buffers():
        assert torch.equal(buffer, buffers.pop(name))
    assert not buffers
    assert unread.model.config.to_dict() == whole.model.config.to_dict()
    assert unread.model.generation_config.to_dict() == whole.model.generation_config.to_dict()


def test_adapters_begin_beside_unread_weights_as_beside_loaded_ones(tmp_path):
    whole, unread = both(saved_model(tmp_path / "model"), lora=LORA)
    ours = dict(unread.named_parameters())
    for name, parameter in whole.named_parameters():
        assert ours[name].is_meta != ("lora" in name)
        assert ours[name].requires_grad == parameter.requires_grad
        assert torch.equal(rows(unread, name, ours[name]), parameter)


def test_a_head_that_is_tied_and_written_too_is_tied(tmp_path):
    folder = saved_model(tmp_path / "model")
    change(folder, lambda weights: weights | {"lm_head.weight": weights[EMBEDDING].clone()})
    _, unread = both(folder)
    assert unread.model.lm_head.weight is unread.model.model.language_model.embed_tokens.weight


# As Qwen2.5-VL was published.
EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"


def change(folder, edit):
    file = folder / "model.safetensors"
    save_file(edit(load_file(file)), file, metadata={"format": "pt"})


def without(name):
    return lambda weights: {key: value for key, value in weights.items() if key != name}


def cut_short(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


FAULTS = {
    "missing": (
        lambda f: change(f, without(NORM)),
        "has the weight model.language_model.norm.weight",
    ),
    "extra": (
        lambda f: change(f, lambda w: w | {"v_head.weight": w[NORM].clone()}),
        r"v_head.weight of .*model.safetensors is no weight",
    ),
    "another shape": (
        lambda f: change(f, lambda w: w | {NORM: w[NORM][:-1].clone()}),
        rf"{NORM} of .*model.safetensors has the shape \[63\], and .* has \[64\]",
    ),
    "twice": (
        lambda f: change(f, lambda w: w | {"model.language_model.norm.weight": w[NORM].clone()}),
        "both the weight model.language_model.norm.weight",
    ),
    "cut short": (cut_short, "model.safetensors is damaged"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_file_names_file_and_key(fault, tmp_path):
    folder = saved_model(tmp_path / "model")
    damage, said = FAULTS[fault]
    damage(folder)
    with pytest.raises(ValueError, match=said) as caught:
        load_policy(path=str(folder), leave_in_files=True, **LOAD)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def missing_file(folder):
    sorted(folder.glob("*.safetensors"))[0].unlink()


def entry_too_many(folder):
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["more"] = next(iter(content["weight_map"].values()))
    index.write_text(json.dumps(content))


def another_folder(folder):
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["more"] = "../model.safetensors"
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (missing_file, r"00001-of-\d+.safetensors is missing, which has"),
        (entry_too_many, r".safetensors lacks more, which model.safetensors.index.json has in it"),
        (another_folder, "it names a file of another folder"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{"), "is no index of weights"),
    ],
)
def test_a_fault_of_the_index_names_file_and_key(damage, said, tmp_path):
    folder = saved_model(tmp_path / "model", several=True)
    damage(folder)
    with pytest.raises(ValueError, match=said):
        load_policy(path=str(folder), leave_in_files=True, **LOAD)


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def untied_by_its_weights(folder):
    change(folder, lambda weights: weights | {"lm_head.weight": weights[EMBEDDING] + 1})


@pytest.mark.parametrize(
    ("change", "reason"),
    [(pickled, "it has neither model.safetensors"), (untied_by_its_weights, "differ, which")],
)
def test_what_transformers_alone_can_load_is_loaded_whole_and_said(
    change, reason, tmp_path, caplog
):
    folder = saved_model(tmp_path / "model")
    change(folder)
    with caplog.at_level(logging.WARNING, "papo.models.loading"):
        whole, same = both(folder)
    assert same.unread_weights is None
    assert reason in caplog.text
    for name, parameter in same.named_parameters():
        assert torch.equal(parameter, whole.get_parameter(name))


def test_a_digest_tells_files_apart_that_differ_where_another_rank_reads(tmp_path):
    folder = saved_model(tmp_path / "model")

    def digest():
        return load_policy(path=str(folder), leave_in_files=True, **LOAD).unread_weights.digest(2)

    def edit(weights):
        # The first row of the second half.
        weights[EMBEDDING][(weights[EMBEDDING].shape[0] + 1) // 2] += 1
        return weights

    before = digest()
    assert digest() == before
    change(folder, edit)
    assert digest() != before
