"""Two runs' responses to the same problems, side by side: what one got right and the other did not.

The paper shows such examples in its Figures 1 and 13 (arXiv:2507.06448v5), chosen by hand. Here they
are drawn, and how many there are of each kind stands above them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from papo.analysis.pages.rollout_view import (
    MAX_CHARACTERS,
    MAX_PICTURES,
    ROLLOUT_STYLE,
    coloured_text,
    picture_address,
)
from papo.reporting.html import Markup, join, page, paragraph, render, section
from papo.reporting.tokens import colour_key
from papo.storage.evaluated_run import EvaluatedRun, ItemKey
from papo.storage.training_run import ShownResponse
from papo.types import ResponseRecord, derive_seed

Slot = tuple[ItemKey, int]
"""A problem, and the index of a response to it."""

PATTERNS: Mapping[str, tuple[bool, bool]] = {
    "fixed": (False, True),
    "broken": (True, False),
    "wrong twice": (False, False),
    "right twice": (True, True),
}
"""Kind of pair -> whether the first and the second run's response is right."""


def response_pairs_page(
    runs: Sequence[EvaluatedRun], *, count: int, seed: int, problem_id: str | None
) -> str:
    """Returns one self-contained HTML page.

    Args:
        runs: two evaluations of the same problems.
        count: pairs shown of each kind, of different problems.
        seed: of the draw.
        problem_id: show every pair of this problem instead.

    Raises:
        ValueError: not two runs, a negative count, or a problem that they do not have.
    """
    if len(runs) != 2:
        raise ValueError(f"a pair is of two runs; got {len(runs)}")
    if count < 0:
        raise ValueError(f"of each kind 0 or more pairs are shown; got {count}. Set --count.")
    first, second = runs
    slots = pairs_by_pattern(first, second)
    if problem_id is None:
        chosen = {name: draw(some, count, seed, name) for name, some in slots.items()}
    else:
        chosen = {
            name: [slot for slot in some if slot[0][1] == problem_id]
            for name, some in slots.items()
        }
        if not any(chosen.values()):
            raise ValueError(f"{first.folder} has no problem {problem_id!r}; set --problem")
    wanted = {slot for some in chosen.values() for slot in some}
    # The probe scores responses of the view "image"; another view has other responses in these slots.
    coloured = [
        read_token_kl(
            run.folder, {(key, k) for key, k in wanted if run.responses[key][k].view == "image"}
        )
        for run in runs
    ]
    body = [
        paragraph(
            "A pair is one problem and one of its responses by each run. "
            + (
                ""
                if problem_id is not None
                else f"Of each kind up to {count} problems were drawn. "
            )
            + "Examples show what can happen; how often it does is in the counts."
        ),
        colour_key("on the responses of the evaluation, mean over its masks (k3)")
        if any(coloured)
        else paragraph(
            "No token is coloured: evaluate with probe=perception for that, which scores the view image.",
            kind="soft",
        ),
    ]
    total = sum(map(len, slots.values()))
    headings = {}
    for number, (name, shown) in enumerate(chosen.items()):
        right = ["right" if is_right else "wrong" for is_right in PATTERNS[name]]
        headings[f"kind{number}"] = f"{name.capitalize()}: {len(slots[name]):,} of {total:,}"
        body.append(
            section(
                f"kind{number}",
                headings[f"kind{number}"],
                paragraph(f"{first.name}: {right[0]}; {second.name}: {right[1]}."),
                *(_pair(runs, slot, coloured) for slot in shown),
            )
        )
    return page(
        "Responses side by side",
        join(body, "\n"),
        lead=f"{first.name} and {second.name}, {len(first.responses):,} problems.",
        contents=headings,
        style=ROLLOUT_STYLE,
    )


def pairs_by_pattern(first: EvaluatedRun, second: EvaluatedRun) -> dict[str, list[Slot]]:
    """Returns every pair of responses of equal index, by kind, in the order of the first run."""
    kinds = {pattern: name for name, pattern in PATTERNS.items()}
    slots: dict[str, list[Slot]] = {name: [] for name in PATTERNS}
    for key, responses in first.responses.items():
        others = second.responses[key]
        for index, (before, after) in enumerate(zip(responses, others, strict=True)):
            slots[kinds[before.correct, after.correct]].append((key, index))
    return slots


def draw(slots: Sequence[Slot], count: int, seed: int, name: str) -> list[Slot]:
    """Returns up to `count` slots of different problems, a fixed function of its arguments."""
    order = np.random.default_rng(derive_seed(seed, "pairs", name)).permutation(len(slots))
    drawn: dict[ItemKey, Slot] = {}
    for index in order:
        drawn.setdefault(slots[index][0], slots[index])
    return list(drawn.values())[:count]


def read_token_kl(
    folder: Path, wanted: Iterable[Slot]
) -> dict[Slot, tuple[tuple[str, ...], tuple[float, ...]]]:
    """Returns tokens and their perception KL (k3, nats) from perception_kl.jsonl, as far as known.

    Raises:
        ValueError: a line is no record of the probe.
    """
    path = folder / "perception_kl.jsonl"
    if not path.is_file():
        return {}
    wanted = set(wanted)
    found = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                key = (str(row["benchmark"]), str(row["problem_id"]))
                slot = (key, int(row["response_index"]))
                if row["kind"] == "own" and slot in wanted:
                    tokens = tuple(map(str, row["tokens"]))
                    found[slot] = (tokens, tuple(map(float, row["kl_k3"])))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number} is no record of the probe: {error}; run "
                    "evaluate.py probe=perception again"
                ) from error
    return found


def _pair(
    runs: Sequence[EvaluatedRun],
    slot: Slot,
    coloured: Sequence[Mapping[Slot, tuple[tuple[str, ...], tuple[float, ...]]]],
) -> Markup:
    key, index = slot
    problem = runs[0].problems[key]
    records = [run.responses[key][index] for run in runs]
    return render(
        "response_pair.html",
        question=problem.question.replace("<image>", "").strip(),
        slot=f"{key[0]} {key[1][:200]}, response {index}",
        pictures=[
            address
            for path in problem.images[:MAX_PICTURES]
            if (address := picture_address(runs[0].folder, str(path.resolve())))
        ],
        reference=records[0].reference,
        sides=[
            (run.name, record, _text(record, token_kl.get(slot), say_why=bool(token_kl)))
            for run, record, token_kl in zip(runs, records, coloured, strict=True)
        ],
        characters=MAX_CHARACTERS,
    )


def _text(
    record: ResponseRecord,
    token_kl: tuple[tuple[str, ...], tuple[float, ...]] | None,
    *,
    say_why: bool,
) -> Markup:
    tokens, values = token_kl or (None, None)
    shown = ShownResponse(
        text=record.response,
        reward=0.0,
        correct=record.correct,
        components={},
        tokens=tokens,
        perception_kl=values,
    )
    return coloured_text(shown, say_why=say_why)
