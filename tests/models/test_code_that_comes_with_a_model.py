"""A model's folder may hold code and pickles; they run where the command line trusts them, or never."""

import inspect
import json
import pickle
import shutil
from pathlib import Path

import pytest
import transformers
from models.test_prompts_and_loading import CHECK, LOAD

from papo.lab import WARM_START
from papo.models import check_model, load_policy

CODE = """
import pathlib
pathlib.Path({marker!r}).touch()
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
class Config(Qwen2_5_VLConfig):
    pass
class Model(Qwen2_5_VLForConditionalGeneration):
    pass
class Tokenizer(Qwen2Tokenizer):
    pass
"""
AUTO_MAP = {
    "AutoConfig": "code.Config",
    "AutoModel": "code.Model",
    "AutoModelForImageTextToText": "code.Model",
    "AutoTokenizer": ["code.Tokenizer", "code.Tokenizer"],
    "AutoImageProcessor": "code.Processor",
    "AutoProcessor": "code.Processor",
}


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The lab's model with code of its own, named wherever a model may name code."""
    monkeypatch.setattr(
        transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    found = tmp_path / "model"
    shutil.copytree(WARM_START, found)
    (found / "code.py").write_text(CODE.format(marker=str(tmp_path / "ran")))
    (found / "custom_generate").mkdir()
    (found / "custom_generate" / "generate.py").write_text(
        CODE.format(marker=str(tmp_path / "ran")) + "\ndef generate(model, **_):\n    pass\n"
    )
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        edit(found / name, auto_map=AUTO_MAP)
    return found


def test_a_known_model_loads_and_the_code_beside_it_does_not_run(folder, tmp_path):
    check_model(path=str(folder), hub_id=None, **CHECK)
    assert load_policy(**LOAD, path=str(folder)).encoder is not None
    assert not (tmp_path / "ran").exists()


def test_a_model_that_is_nothing_without_its_code_is_refused(folder, tmp_path):
    edit(folder / "config.json", model_type="strange")
    with pytest.raises(ValueError, match="trust_remote_code"):
        check_model(path=str(folder), hub_id=None, **CHECK)
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_policy(**LOAD, path=str(folder))
    assert not (tmp_path / "ran").exists()


def test_code_that_the_command_line_trusts_does_run(folder, tmp_path):
    edit(folder / "config.json", model_type="strange")
    with pytest.raises(ValueError, match="no adapter for model family 'strange'"):
        check_model(path=str(folder), hub_id=None, **(CHECK | {"trust_remote_code": True}))
    assert (tmp_path / "ran").exists(), "or the tests above prove nothing"


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_pickled_weights_are_not_unpickled(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(Exception, match=r"(?i)weights|pickle"):
        load_policy(**LOAD, path=str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["load", "hub", "no_such_type"])
def test_a_type_of_weights_is_a_type(name):
    # As it is without the tests' checking of types.
    load = inspect.unwrap(load_policy)
    with pytest.raises(ValueError, match=rf"model\.dtype='{name}'"):
        load(**(LOAD | {"dtype": name}), path=str(WARM_START))
