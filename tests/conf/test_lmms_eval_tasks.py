"""The task files for lmms-eval: known keys, functions that exist, and documents that grade right.

lmms-eval itself is not needed: its rules for task files (0.7.3) are repeated here.
"""

import importlib.util
from pathlib import Path

import pytest
import yaml
from data.benchmark_layouts import BENCHMARKS, ROWS, write_papo_eval
from datasets import Dataset, NamedSplit

from papo.storage.published import published_results

TASKS = Path(__file__).resolve().parents[2] / "conf" / "lmms_eval"
KEYS = published_results()["main"]["columns"]
# Fields of lmms_eval.api.task.TaskConfig, lmms-eval 0.7.3.
TASK_KEYS = {
    *("task", "task_alias", "tag", "group", "group_alias", "dataset_path", "dataset_name"),
    *("dataset_kwargs", "training_split", "validation_split", "test_split", "fewshot_split"),
    *("full_docs", "process_results_use_image", "process_docs", "doc_to_visual", "doc_to_text"),
    *("doc_to_target", "doc_to_choice", "doc_to_messages", "process_results", "use_prompt"),
    *("description", "target_delimiter", "fewshot_delimiter", "fewshot_config", "num_fewshot"),
    *("metric_list", "output_type", "generation_kwargs", "repeats", "filter_list"),
    *("should_decontaminate", "doc_to_decontamination_query", "cluster_key", "score_key"),
    *("metadata", "lmms_eval_specific_kwargs", "model_specific_generation_kwargs"),
    *("model_specific_target_kwargs", "reasoning_tags", "auto_strip_thinking"),
}
GROUP_KEYS = {"group", "group_alias", "task", "aggregate_metric_list", "metadata"}


class Loader(yaml.SafeLoader):
    """Reads `!function module.name` as the pair (module, name)."""


Loader.add_constructor(
    "!function", lambda loader, node: tuple(loader.construct_scalar(node).split("."))
)


def read(name):
    """Returns a task file with what it includes, as lmms-eval's load_yaml_config does."""
    config = yaml.load((TASKS / name).read_text(), Loader)
    included = config.pop("include", None)
    return {**(read(included) if included else {}), **config}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """papo_eval.py, loaded by its path, on fixtures of two of the nine sets."""
    for key in ("geo3k", "counting"):
        write_papo_eval(tmp_path, key)
    monkeypatch.setenv("PAPO_EVAL_PATH", str(tmp_path))
    spec = importlib.util.spec_from_file_location("papo_eval", TASKS / "papo_eval.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    published = loaded._read

    def smaller(name):
        content = published(name)
        for node in content.get("sets", {}).values():
            node["problems"]["num_rows"] = len(ROWS)
        return content

    monkeypatch.setattr(loaded, "_read", smaller)
    yield loaded
    loaded._grader().close()


def documents(module, key="geo3k"):
    placeholder = Dataset.from_list([{"note": ""}], split=NamedSplit(key))
    return module.documents(placeholder)


@pytest.mark.parametrize("key", KEYS)
def test_every_set_has_a_task_of_known_keys(key):
    config = read(f"papo_eval_{key}.yaml")
    assert set(config) <= TASK_KEYS
    assert (config["task"], config["test_split"]) == (f"papo_eval_{key}", key)
    assert config["dataset_kwargs"]["data_files"] == {key: "placeholder.jsonl"}
    assert (TASKS / "placeholder.jsonl").read_text().count("\n") == 1
    assert (BENCHMARKS / f"{key}.yaml").is_file()


def test_every_named_function_exists(module):
    config = read("papo_eval_geo3k.yaml")
    functions = {key: value for key, value in config.items() if isinstance(value, tuple)}
    assert len(functions) == 5
    for name, (file, function) in functions.items():
        assert file == "papo_eval"
        assert callable(getattr(module, function)), name


def test_the_protocol_is_that_of_the_evaluation():
    config = read("papo_eval_geo3k.yaml")
    rollout = yaml.safe_load((TASKS.parent / "rollout" / "avg_at_8.yaml").read_text())
    sampling = config["generation_kwargs"]
    assert config["repeats"] == rollout["num_responses"] == 8
    assert (sampling["top_p"], sampling["top_k"]) == (rollout["top_p"], rollout["top_k"])
    assert (sampling["temperature"], sampling["max_new_tokens"]) == (1.0, 2048)
    # Without these, lmms-eval cuts at an empty line, keeps one response, drops the thoughts.
    assert "\n\n" not in sampling["until"]
    assert config["filter_list"] == [{"name": "none", "filter": []}]
    assert config["reasoning_tags"] == "none"


def test_the_groups_are_the_columns_of_the_published_table():
    general = read("papo_eval_general.yaml")
    vision = read("papo_eval_vision.yaml")
    everything = read("papo_eval.yaml")
    assert everything["task"] == [f"papo_eval_{key}" for key in KEYS]
    assert general["task"] + vision["task"] == everything["task"]
    assert len(vision["task"]) == 4
    for group in (general, vision, everything):
        assert set(group) <= GROUP_KEYS
        (metric,) = group["aggregate_metric_list"]
        assert metric == {"metric": "accuracy", "aggregation": "mean", "weight_by_size": False}


def test_documents_are_the_problems_of_the_set(module):
    read_documents = documents(module)
    assert [one["id"] for one in read_documents] == [f"geo3k:{row}" for row in range(4)]
    assert [one["answer"] for one in read_documents] == [answer for _, answer, _ in ROWS]
    assert documents(module, "counting")[0]["id"] == "counting:0"
    first, second = read_documents[0], read_documents[1]
    assert module.pictures(first)[0].getpixel((0, 0)) == (255, 0, 0)
    assert module.prompt(first).startswith("What is the area of the red square?\n\nYou first")
    (turn,) = module.messages(second)
    assert [part["type"] for part in turn["content"]] == ["image", "image", "text"]
    assert turn["content"][1]["url"].getpixel((0, 0)) == (0, 0, 255)


def test_pictures_inside_the_text_stand_there_for_chat_models(module):
    document = {
        "key": "geo3k",
        "row": 1,
        "question": "Compare <image> with <image>.",
    }
    (turn,) = module.messages(document)
    assert [part.get("text", "picture") for part in turn["content"]] == [
        *("Compare ", "picture", " with ", "picture", ".")
    ]


def test_responses_are_graded_by_all_graders(module):
    metrics = {one["metric"] for one in read("papo_eval_geo3k.yaml")["metric_list"]}
    read_documents = documents(module)
    for one in read_documents:
        result = module.accuracy(one, [f"\\boxed{{{one['answer']}}}"] * 8)
        assert set(result) == metrics
        assert set(result.values()) == {1.0}
    some = module.accuracy(read_documents[2], ["\\boxed{12}", "12", "\\boxed{3\\times4}", "?"])
    assert some["accuracy"] == some["accuracy_mathruler"] == 0.25
    assert some["accuracy_math_verify"] == 0.5
