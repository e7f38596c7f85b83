"""The rows of a rollout table as W&B shows them: a table and galleries of pictures and heat maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from papo.reporting.tokens import heat_map

COLUMNS = (
    "rollout_step",
    "problem",
    "image",
    "masked_image",
    "prompt",
    "answer",
    "response",
    "heat_map",
    "reward",
    "error",
    "perception_kl",
)


def wandb_rollouts(folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what to log: the table `rollouts`, and the media `rollout_image`,
    `rollout_masked_image` and `rollout_heat_map`; media that no row has are absent.

    Args:
        folder: of the run; paths in the rows start there.
        rows: as in rollouts.jsonl. Of several images the first is shown.
    """
    table = wandb.Table(columns=list(COLUMNS))
    media: dict[str, list[Any]] = {}
    shown: set[str] = set()

    def picture(paths: Sequence[str], key: str, problem: str) -> wandb.Image | None:
        if not paths:
            return None
        # The responses to a problem share its picture; a gallery needs it once.
        if paths[0] not in shown:
            shown.add(paths[0])
            media.setdefault(key, []).append(wandb.Image(str(folder / paths[0]), caption=problem))
        return wandb.Image(str(folder / paths[0]))

    for row in rows:
        token_kl = row["perception_kl"]
        drawn = None
        if token_kl is not None:
            source = heat_map(row["tokens"], token_kl)
            drawn = _html(source)
            media.setdefault("rollout_heat_map", []).append(_html(source))
        table.add_data(
            row["rollout_step"],
            row["problem"],
            picture(row["images"], "rollout_image", row["problem"]),
            picture(row["masked_images"], "rollout_masked_image", row["problem"]),
            row["prompt"],
            row["answer"],
            row["response"],
            drawn,
            row["reward"],
            error_of(row),
            None if not token_kl else sum(token_kl) / len(token_kl),
        )
    return {"rollouts": table, **media}


def error_of(row: Mapping[str, Any]) -> str:
    """Returns what is wrong with a response: the reward's name for it, `wrong` where it has none, or
    nothing where it is right."""
    named = [
        name.removeprefix("error_")
        for name, value in row["components"].items()
        if name.startswith("error_") and value
    ]
    return ", ".join(named) or ("" if row["correct"] else "wrong")


def _html(source: str) -> wandb.Html:
    # Taken as it is: W&B would otherwise add a style sheet from its server, or read a path.
    return wandb.Html(source, inject=False, data_is_not_path=True)
