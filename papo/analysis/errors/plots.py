"""The two pictures of an error analysis: shares of errors per run, and what became of each error."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from papo.analysis.errors.summary import ErrorSummary
from papo.analysis.errors.tables import transition_table
from papo.analysis.errors.taxonomy import ERROR_CATEGORIES
from papo.analysis.errors.transitions import Transitions

# Distinguishable without colour vision (Okabe and Ito); hatches tell them apart in print.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#999999")
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "")
# Names of runs come from paths: they are text, never TeX; and equal data give equal files.
_SETTINGS: Any = {"text.usetex": False, "text.parse_math": False, "svg.hashsalt": "papo"}


def plot_shares(summary: ErrorSummary, labeller: str) -> Figure:
    """Returns stacked bars of error shares, one per run, with the paper's perception share marked."""
    with matplotlib.rc_context(_SETTINGS):
        runs = [run for run in summary.runs if summary.labellers[labeller].runs[run].labelled]
        figure = Figure(figsize=(7.5, 1.4 + 0.7 * len(runs)), layout="constrained")
        axes = figure.subplots()
        shares = [summary.labellers[labeller].runs[run].shares for run in runs]
        start = [0.0] * len(runs)
        for category, colour, hatch in zip(ERROR_CATEGORIES, _COLOURS, _HATCHES, strict=True):
            widths = [100 * one[category].wilson.value for one in shares]
            bars = axes.barh(
                runs,
                widths,
                left=start,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                label=category.replace("_", " "),
            )
            labels = [f"{width:.0f}" if width >= 5 else "" for width in widths]
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
            for text in axes.bar_label(bars, labels, label_type="center", fontsize=9):
                text.set_bbox(box if text.get_text() else None)
            start = [a + b for a, b in zip(start, widths, strict=True)]
        paper = 100 * summary.published.perception.value
        axes.axvline(paper, color="black", linestyle="--", linewidth=1)
        axes.set_title(
            f"Errors of the wrong answers, labelled by {labeller}\n"
            f"(dashed: {paper:.0f} % perception errors in the paper, another model and data)",
            fontsize=10,
        )
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of wrong answers")
        axes.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def plot_transitions(transitions: Transitions) -> Figure:
    """Returns the table of categories before and after as a grid shaded by how many slots it holds."""
    with matplotlib.rc_context(_SETTINGS):
        headings, rows = transition_table(transitions)
        names = [name.replace("_", " ") for name in headings[1:-1]]
        counts = [[int(cell) for cell in row[1:-1]] for row in rows[:-1]]
        size = 2.2 + 0.45 * len(names)
        figure = Figure(figsize=(size + 0.6, size), layout="constrained")
        axes = figure.subplots()
        axes.imshow(counts, cmap="Blues")
        most = max(max(row) for row in counts)
        for y, row in enumerate(counts):
            for x, count in enumerate(row):
                colour = "white" if count > most / 2 else "black"
                axes.text(x, y, str(count), ha="center", va="center", color=colour, fontsize=9)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel(f"after: {transitions.after}")
        axes.set_ylabel(f"before: {transitions.before}")
        axes.set_title(f"Response slots, labelled by {transitions.labeller}", fontsize=10)
    return figure


def encode_figure(figure: Figure, kinds: Sequence[str] = ("png", "svg")) -> dict[str, bytes]:
    """Returns the picture in each format."""
    encoded = {}
    with matplotlib.rc_context(_SETTINGS):
        for kind in kinds:
            buffer = io.BytesIO()
            # Without a date, the same numbers give the same file.
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
            encoded[kind] = buffer.getvalue()
    return encoded
