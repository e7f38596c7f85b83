"""The README.md of an exported policy: what it is, how it was trained, what it scores, whose licence holds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from papo.commands.constructors import read_config
from papo.evaluation.run.report import accuracy_name
from papo.reporting.markdown_text import markdown_table, markdown_text
from papo.reporting.numbers import percent
from papo.storage.files import read_object

_LARGEST_CARD = 1_000_000
"""Bytes of a base model's card that are looked at."""

_PROCESSOR_FILES = (
    *("processor_config.json", "video_preprocessor_config.json"),
    *("chat_template.jinja", "chat_template.json"),
)
"""What AutoProcessor reads beside tokenizer and image processor."""

_SETTINGS = (
    *("gamma", "beta", "eta_full", "eta_masked", "clip_low", "clip_high"),
    *("average", "importance_cap"),
)


def model_card(
    folder: Path, *, checkpoint: str, evaluations: Sequence[Path] = (), licence: str | None
) -> str:
    """Returns the card of the policy of a training run, as the hub reads it.

    Names of folders on the machine that trained are left out, but for the last part of a model's path.

    Args:
        folder: of the run.
        checkpoint: whose weights these are.
        evaluations: folders that evaluate.py wrote for them.
        licence: of the base model, e.g. apache-2.0; None where its card does not say.

    Raises:
        DamagedFile: run.json, result.json or the summary of an evaluation is.
        ValueError: an evaluation has no summary.
    """
    config = read_config(folder / "config.yaml")
    facts, ended = (_said(folder / name) for name in ("run.json", "result.json"))
    summaries = [_summary(path) for path in evaluations]
    base = base_name(config.get("model", {}))
    lines = [
        *_front_matter(base, licence, config),
        f"# {markdown_text(base)}, trained with papo",
        "",
        f"A vision-language policy trained by reinforcement learning with verifiable rewards "
        f"({_objective(config)}; Perception-Aware Policy Optimization, arXiv:2507.06448). Weights of "
        f"{markdown_text(checkpoint)}.",
        "",
        "## Results",
        "",
        *(_evaluated(summaries) or _held_out(ended) or ["None were measured."]),
        "",
        "## Training",
        "",
        *_training(config, facts, ended),
        "",
        "## Licence and limits",
        "",
        _licence(base, licence),
        "",
        "The reward checks final answers, not how they were reached: a right answer may come from a wrong reading of the "
        "picture, and nothing was done for safety. Use it for research.",
        "",
        "## Use",
        "",
        "    from transformers import AutoModelForImageTextToText, AutoTokenizer",
        '    model = AutoModelForImageTextToText.from_pretrained("FOLDER")',
        '    tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        "",
    ]
    return "\n".join(lines)


def _said(path: Path) -> dict[str, Any]:
    """What a file of the run says; nothing where it is not there."""
    return read_object(path, remedy="Name another run.") if path.is_file() else {}


def base_name(model: Mapping[str, Any]) -> str:
    """Returns what the policy began as: a hub id, or the last part of a folder's path."""
    if path := model.get("path"):
        return Path(str(path)).name
    return str(model.get("hub_id") or model.get("family") or "a model of random weights")


def base_file(model: Mapping[str, Any], name: str) -> Path | None:
    """Returns a file of the base model, from its folder or the local cache of the hub; never downloads."""
    if path := model.get("path"):
        found = Path(str(path)).expanduser() / name
        return found if found.is_file() else None
    if not model.get("hub_id"):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(
        str(model["hub_id"]), name, revision=model.get("revision") or "main"
    )
    return Path(cached) if isinstance(cached, str) else None


def base_licence(model: Mapping[str, Any]) -> str | None:
    """Returns the licence that the card of the base model names."""
    card = base_file(model, "README.md")
    if card is None or card.stat().st_size > _LARGEST_CARD:
        return None
    _, opening, rest = card.read_text("utf-8", errors="replace").partition("---\n")
    matter, closing, _ = rest.partition("\n---")
    if not opening or not closing:
        return None
    try:
        read = yaml.safe_load(matter)
    except (yaml.YAMLError, RecursionError):
        return None
    licence = read.get("license") if isinstance(read, dict) else None
    return licence if isinstance(licence, str) else None


def copy_processor_files(model: Mapping[str, Any], output: Path) -> None:
    """Copies what AutoProcessor reads beside the files of a policy, where the base model has it.

    Data alone: code that came with the base model stays where it is.
    """
    for name in _PROCESSOR_FILES:
        found = base_file(model, name)
        if found is not None and not (output / name).exists():
            (output / name).write_bytes(found.read_bytes())


def _front_matter(base: str, licence: str | None, config: Mapping[str, Any]) -> list[str]:
    model = config.get("model", {})
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["papo", "grpo", "reinforcement-learning", "visual-reasoning"],
    }
    if model.get("hub_id") and not model.get("path"):
        fields["base_model"] = base
    if licence:
        fields["license"] = licence
    if hub_id := config.get("data", {}).get("hub_id"):
        fields["datasets"] = [hub_id]
    # JSON is YAML, and quotes what could be anything else.
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in fields.items()), "---", ""]


def _objective(config: Mapping[str, Any]) -> str:
    terms = config.get("objective", {}).get("terms") or {}
    credits = config.get("objective", {}).get("credits") or {}
    return markdown_text(
        f"terms {', '.join(terms)}" + (f"; credits {', '.join(credits)}" if credits else "")
    )


def _summary(folder: Path) -> Mapping[str, Any]:
    path = folder / "summary.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no finished evaluation: there is no summary.json. Name the run_dir of an evaluate.py that "
            "has ended."
        )
    return read_object(path, remedy="Repeat the evaluation.")


def _evaluated(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            str(one["label"]),
            str(one["view"]),
            str(one["num_problems"]),
            accuracy_name(summary),
            percent(one["accuracy"]),
        ]
        for summary in summaries
        for one in summary["sets"]
    ]
    if not rows:
        return []
    table = markdown_table(("benchmark", "view", "problems", "measure", "per cent [95 %]"), rows)
    return [table, "", "Intervals are over problems (`python evaluate.py`)."]


def _held_out(result: Mapping[str, Any]) -> list[str]:
    rows = [
        [str(name), moment, percent(one["accuracy"])]
        for moment, sets in (result.get("evaluation") or {}).items()
        for name, one in sets.items()
        if isinstance(one, Mapping) and isinstance(one.get("accuracy"), Mapping)
    ]
    if not rows:
        return []
    return [
        markdown_table(("held-out set", "training", "accuracy, per cent [95 %]"), sorted(rows)),
        "",
        "Intervals are over problems, of one run.",
    ]


def _training(
    config: Mapping[str, Any], facts: Mapping[str, Any], result: Mapping[str, Any]
) -> list[str]:
    data, training = config.get("data", {}), config.get("training", {})
    source = data.get("hub_id") or Path(str(data.get("path") or "")).name or data.get("_target_")
    objective = config.get("objective", {})
    weights = [f"{key} {objective[key]}" for key in _SETTINGS if objective.get(key) is not None]
    rollouts = (result.get("metrics") or {}).get("rollout_step")
    versions = facts.get("versions") or {}
    rows = {
        "data": source,
        "objective": ", ".join(weights),
        "fidelity": config.get("fidelity", {}).get("name"),
        "rollouts": f"{training.get('num_rollouts')}"
        + (f", {rollouts:.0f} done" if isinstance(rollouts, float) else ""),
        "responses to a prompt": config.get("rollout", {}).get("num_responses"),
        "prompts per rollout": training.get("prompts_per_rollout"),
        "learning rate": config.get("optimizer", {}).get("lr"),
        "seed": facts.get("seed"),
        "commit of papo": facts.get("git_commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return [
        markdown_table(
            ("setting", "value"),
            [[name, str(value)] for name, value in rows.items() if value not in (None, "")],
        )
    ]


def _licence(base: str, licence: str | None) -> str:
    if licence:
        return f"The base model, {markdown_text(base)}, has the licence {markdown_text(licence)}, which holds for these weights."
    return (
        f"The licence of the base model, {markdown_text(base)}, holds for these weights. It was not found beside it: "
        "look it up before you share them."
    )
