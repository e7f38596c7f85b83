"""A message names keys that the command has in which it appears."""

import functools
import json
import re

import datasets
import pytest
from composing import composed
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from PIL import Image

from papo.commands.evaluation import plan as evaluation
from papo.commands.training import plan as training
from papo.data import CheckedProblems

ROW = {"problem": "<image>How many?", "answer": "3", "images": ["one.png"]}


@pytest.fixture(autouse=True)
def no_command(monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Both splits of a data set of one problem; and no hub."""
    Image.new("RGB", (60, 40)).save(tmp_path / "one.png")
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(ROW))
    (tmp_path / "shards").mkdir()
    for split in ("train", "test"):
        (tmp_path / "shards" / f"{split}-00001-of-00003.parquet").write_bytes(b"")
    (tmp_path / "other.txt").write_text("")

    def load_dataset(hub_id, *, name, revision, split):
        if revision == "gone":
            raise ValueError("no such revision")
        return datasets.Dataset.from_list([ROW])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("papo.data.table.check_hub", lambda *args, **kwargs: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def endless(problem):
    return 10**9


@functools.cache
def chosen(name, *choices):
    """Composed once: the mistakes are written into copies."""
    config = composed(name, choices)
    return config, HydraConfig.get()


def with_settings(name, choices, settings):
    config, hydra = chosen(name, *choices)
    HydraConfig.instance().set_config(OmegaConf.create({"hydra": hydra}))
    config = config.copy()
    for key, value in settings.items():
        OmegaConf.update(config, key, value)
    return config


def message_of(command, config):
    """What the command says of its data before a model is loaded, and of their first problem."""
    try:
        plan = command.make_plan(config)
        sources = (
            [plan.source] if command is training else [one.problems for one in plan.benchmarks]
        )
        for source in sources:
            if hasattr(source, "preflight"):
                source.preflight()
            CheckedProblems(source, prompt_length=endless)[0]
    except (ValueError, OSError) as error:
        return str(error)
    raise AssertionError("nothing was refused")


def advised(message):
    keys = re.findall(r"(?<![\w./])[a-z_]+(?:\.[\w-]+)+(?==)", message)
    keys += re.findall(r"[Ss]et ([a-z_]+(?:\.\w+)+)", message)
    keys += re.findall(r"([a-z_]+(?:\.\w+)+) counts from", message)
    return sorted(set(keys))


LOCAL_MISTAKES = {
    "a folder that is not there": ("nowhere", {}),
    "another split": ("", {"split": "validation"}),
    "a file of another kind": ("other.txt", {}),
    "a shard that is missing": ("shards", {}),
    "another question": ("", {"question_column": "prompt"}),
    "another answer": ("", {"answer_column": "solution"}),
    "a prompt that is too long": ("", {}),
    "no limit": ("", {"limit": 0}),
    "no threads": ("", {"num_threads": 0}),
    "neither path nor hub": (None, {}),
}


@pytest.mark.parametrize("mistake", LOCAL_MISTAKES)
@pytest.mark.parametrize(
    ("command", "name", "choice", "path", "section"),
    [
        (training, "train", "data=local", "data.path", "data"),
        (evaluation, "evaluate", "benchmark=local", "data.path", "benchmark.sets.local.problems"),
    ],
    ids=["train", "evaluate"],
)
def test_messages_about_ones_own_data_name_keys_of_the_command(
    folder, command, name, choice, path, section, mistake
):
    where, settings = LOCAL_MISTAKES[mistake]
    changes = {
        path: None if where is None else str(folder / where),
        **{f"{section}.{key}": value for key, value in settings.items()},
    }
    assert_keys_exist(command, with_settings(name, [choice], changes))


def assert_keys_exist(command, config):
    keys = advised(message_of(command, config.copy()))
    assert keys, "the message names no key"
    for key in keys:
        OmegaConf.update(config, key, None)  # raises where the configuration has no such key


LAB = "benchmark.sets.lab_prior.problems"
MISTAKES = [
    *[
        (training, "train", choices, {key: value})
        for choices, key, value in (
            ([], "data.difficulty", 2.0),
            ([], "data.zipf_exponent", -1.0),
            ([], "data.size", 0),
            ([], "data.seed", -1),
            ([], "data.shape", "circle"),
            (["data=geometry3k"], "data.path", None),
            (["data=geometry3k"], "data.revision", "gone"),
            (["data=virl39k_original"], "data.path", None),
            (["data=virl39k_original"], "data.path", "."),
            (["data=virl39k_original"], "data.limit", 0),
            (["reward=math"], "reward.num_workers", 0),
            (["reward=math"], "reward.grader", "none"),
        )
    ],
    *[
        (evaluation, "evaluate", choices, {key: value})
        for choices, key, value in (
            ([], f"{LAB}.difficulty", 2.0),
            ([], f"{LAB}.zipf_exponent", -1.0),
            ([], f"{LAB}.size", 0),
            ([], "benchmark.shape", "circle"),
            ([], "benchmark.limit", 0),
            (["benchmark=geometry3k"], "data.path", None),
            (["benchmark=geometry3k"], "benchmark.revision", "gone"),
            (["benchmark=geo3k"], "data.path", None),
            (["benchmark=geo3k"], "data.path", "."),
            (["benchmark=geo3k"], "benchmark.limit", 0),
            (["benchmark=virl39k_original"], "data.path", "."),
            (["benchmark=logicvista_repo"], "data.path", None),
            (["benchmark=logicvista_repo"], "data.path", "."),
            (["benchmark=geo3k"], "benchmark.num_workers", 0),
            (["benchmark=geo3k"], "benchmark.deadline_seconds", 0.0),
            (["benchmark=geo3k"], "benchmark.grader", "none"),
        )
    ],
]


@pytest.mark.parametrize(("command", "name", "choices", "settings"), MISTAKES)
def test_messages_name_keys_of_the_command(folder, command, name, choices, settings):
    assert_keys_exist(command, with_settings(name, choices, settings))


def test_keys_that_a_command_lacks_are_found_by_this_check():
    assert advised("Set data.split= or point data.path= at it") == ["data.path", "data.split"]
    assert advised("/tmp/x.parquet=3 in data.jsonl; set reward.grader.") == ["reward.grader"]
    with pytest.raises(Exception, match="split"):
        OmegaConf.update(with_settings("evaluate", [], {}), "data.split", None)
