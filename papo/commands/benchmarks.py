"""The benchmarks of a configuration, for `evaluate` and for the validation of `train`."""

from typing import Any

from omegaconf import DictConfig

from papo.commands.building import instantiate, key_of
from papo.evaluation import Benchmark

SET_KEYS = {"label", "group", "published_column", "problems", "grader"}


def make_benchmarks(node: DictConfig) -> list[Benchmark]:
    """Builds the benchmarks of `benchmark.sets`.

    Raises:
        ValueError: there is none, or one has unknown or missing keys.
    """
    if not node.get("sets"):
        raise ValueError("benchmark.sets is empty; choose e.g. benchmark=lab or benchmark=geo3k")
    found = []
    for key, one in node.sets.items():
        if set(one) != SET_KEYS:
            different = ", ".join(sorted(set(one) ^ SET_KEYS))
            raise ValueError(
                f"benchmark.sets.{key} has the keys {', '.join(sorted(SET_KEYS))}; unknown or missing: "
                f"{different}"
            )
        found.append(
            Benchmark(
                key=str(key),
                label=one.label,
                group=one.group,
                published_column=one.published_column,
                problems=make_problems(one.problems),
                grader=instantiate(one.grader),
            )
        )
    return found


def require_problems(benchmark: Benchmark) -> None:
    """Raises ValueError where a benchmark is empty; reads its table, or downloads it."""
    if len(benchmark.problems) == 0:
        raise ValueError(f"{benchmark.label} holds no problem; check benchmark.limit and its files")


def make_problems(node: DictConfig) -> Any:
    """Builds the problems of a set; the project's own sources are told where their settings stand."""
    if not str(node.get("_target_")).startswith("papo."):
        return instantiate(node)
    return instantiate(node, section=key_of(node))


def check_model_of(source: Any, model_path: str | None, max_response_tokens: int | None) -> None:
    """Has problems that are for some models alone say whether they are for this one.

    Raises:
        ValueError: they are not.
    """
    if hasattr(source, "check_model"):
        source.check_model(model_path, max_response_tokens=max_response_tokens)
