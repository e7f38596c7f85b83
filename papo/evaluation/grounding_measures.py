"""The numbers of an audit of what a policy grounds: their names, what each says, and what it cannot say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from papo.reporting.numbers import interval_text, no_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingMeasure:
    """One number of an audit.

    Attributes:
        name: its column; `NAME_low` and `NAME_high` are the ends of its interval.
        label: what a table calls it.
        unit: "share" (0 to 1; tables show per cent), "points" (a difference of shares) or "nats".
        says: what it is.
        cannot_say: what it must not be read as.
    """

    name: str
    label: str
    unit: str
    says: str
    cannot_say: str


def _of(name: str, label: str, unit: str, says: str, cannot_say: str) -> GroundingMeasure:
    return GroundingMeasure(name=name, label=label, unit=unit, says=says, cannot_say=cannot_say)


_GUESS = "why: a question may be guessable, and a policy that never saw such input may do worse than it could"

MEASURES: tuple[GroundingMeasure, ...] = (
    _of(
        "accuracy",
        "accuracy with the picture",
        "share",
        "avg@k: mean over problems of the share of responses that are right.",
        "whether a right answer was seen or guessed",
    ),
    _of("accuracy_blank", "accuracy, black", "share", "The same with every picture black.", _GUESS),
    _of(
        "accuracy_removed", "accuracy, no picture", "share", "The same, the question alone.", _GUESS
    ),
    _of(
        "accuracy_swapped",
        "accuracy, another's picture",
        "share",
        "The same with the pictures of another problem, against the own reference.",
        _GUESS,
    ),
    _of(
        "drop_blank",
        "accuracy lost, black",
        "points",
        "accuracy minus accuracy_blank on the same problems.",
        "how a problem was solved: the picture may be needed for one number of three",
    ),
    _of(
        "drop_swapped",
        "accuracy lost, another's picture",
        "points",
        "accuracy minus accuracy_swapped on the same problems.",
        "how a problem was solved; and answers that other pictures share are right by chance",
    ),
    _of(
        "blind_correct",
        "right answers also right blind",
        "share",
        "Of the right answers, the share that a second answer to a black picture would also give: sum over problems of "
        "accuracy times accuracy_blank, divided by that of accuracy.",
        "that the others were seen: a blind guess is counted only where it is drawn",
    ),
    _of(
        "vdf",
        "right answers likelier with the picture",
        "share",
        "VEST's vision-driven fraction: of the right responses, the share that belongs to problems whose reference is "
        "likelier with the picture than with a black one.",
        "anything of the size of the gain: a hair counts; nor of the responses themselves, whose words are not scored",
    ),
    _of(
        "margin_blank",
        "margin of the reference, black",
        "nats",
        "log p(reference | picture) minus log p(reference | black picture), mean over problems.",
        "that the right place was looked at; and black pictures are unlike what a policy was trained on",
    ),
    _of(
        "margin_swapped",
        "margin of the reference, another's picture",
        "nats",
        "The same against the pictures of another problem.",
        "that the right place was looked at",
    ),
    _of(
        "own_likelier",
        "own right responses likelier with it",
        "share",
        "Of the right responses that were scored, the share whose words are likelier with the picture than with a black one.",
        "anything of wrong responses, or of the size of the gain",
    ),
    _of(
        "perception_kl",
        "perception KL, black",
        "nats",
        "KL(pi(. | picture) || pi(. | black picture)) over the whole vocabulary, mean over the tokens of own responses.",
        "that what was seen is right: it is as large for a number misread with conviction",
    ),
    _of(
        "kl_top_fifth",
        "of it in the top fifth of tokens",
        "share",
        "Share of a response's perception KL that its most dependent fifth of tokens carries; 0.2 where all weigh the same.",
        "whether these tokens are the ones that name what is seen",
    ),
    _of(
        "evidence_drop",
        "evidence hidden",
        "nats",
        "How much less likely own responses are with the evidence black, mean over problems.",
        "how much of it is the price of black squares: see evidence_margin",
    ),
    _of(
        "control_drop",
        "as much hidden elsewhere",
        "nats",
        "The same with boxes of the same sizes elsewhere black, mean over the controls.",
        "anything where the controls cover what else the question needs",
    ),
    _of(
        "evidence_margin",
        "evidence above its controls",
        "nats",
        "evidence_drop minus control_drop.",
        "that the evidence was read right: a policy that reads it wrong rests on it too",
    ),
    _of(
        "evidence_above",
        "responses that rest on the evidence",
        "share",
        "Share of own responses that lose more by the evidence than by the mean of its controls.",
        "anything of the size of the loss",
    ),
    _of(
        "reference_margin",
        "evidence above its controls, reference",
        "nats",
        "evidence_margin of the reference instead of own responses.",
        "that it would be written",
    ),
)

COUNTS = (
    *("num_problems", "num_responses", "num_scored", "num_unchanged", "num_boxed"),
    *("num_no_control", "num_controls", "controls_needed"),
)
"""Columns that count: problems with responses; k; problems scored; of these without a picture that blackening
changes; with evidence and controls; with evidence and no room for a control; controls of each; controls that a stable margin needs."""

IDENTITY = ("checkpoint", "weights", "benchmark", "label")

COLUMNS: tuple[str, ...] = (
    *IDENTITY,
    *COUNTS,
    *(f"{one.name}{end}" for one in MEASURES for end in ("", "_low", "_high")),
)
"""Of a row, always these and in this order; what could not be measured is empty."""


def measured_text(measure: GroundingMeasure, row: Mapping[str, Any]) -> str:
    """Returns a number of a row with its interval, as tables show it; empty where there is none."""
    value, low, high = (row.get(f"{measure.name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    factor, form = (1.0, "{:.3g}") if measure.unit == "nats" else (100.0, "{:.1f}")
    if measure.unit == "points":
        form = "{:+.1f}"
    if low is None or high is None:
        return f"{form.format(factor * value)} {no_interval()}"
    return interval_text(
        {"value": value, "low": low, "high": high}, lambda one: form.format(factor * one)
    )
