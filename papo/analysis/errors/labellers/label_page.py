"""The page on which a person says what went wrong in each response.

One HTML file that works from a file:// path: keyboard driven, blind to the run (it knows opaque item
ids only), keeps progress in the browser and exports JSON:

    {"format": "papo-labels-1", "analysis": ID, "labeller": NAME,
     "labels": [{"item": ID, "category": "perception", "quote": "", "note": "", "seconds": 3.2}]}

Which responses are shown, and what becomes of the labels, is not decided here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papo.reporting.html import data_uri, page, render

LABELS_FORMAT = "papo-labels-1"
MAX_CHARACTERS = 20_000
"""Of a question, response or reference; a person reads no more, and the page stays quick."""

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelItem:
    """One response to label.

    Attributes:
        item: opaque id, unique on the page; says nothing of the run.
        question: as the model was asked.
        images: the pictures of the question, as PNG, JPEG or WebP bytes; may be empty.
        response: what the model wrote.
        reference: the right answer.
    """

    item: str
    question: str
    images: tuple[bytes, ...]
    response: str
    reference: str


def build_label_page(
    items: Sequence[LabelItem], *, analysis: str, categories: Mapping[str, str]
) -> str:
    """Returns the HTML of a label page.

    Args:
        items: in the order in which they are labelled.
        analysis: id of the analysis; the browser keeps progress under it, the export names it.
        categories: name -> definition, at most nine; the n-th is chosen with the key n.

    Raises:
        ValueError: no items, an item twice, no or too many categories, or a picture of another kind.
    """
    if not items:
        raise ValueError("a label page needs at least one item; the sample is empty")
    if not 1 <= len(categories) <= 9:
        raise ValueError(f"a label page has one key, 1 to 9, per category; got {len(categories)}")
    names = [item.item for item in items]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"every item of a label page has its own id; got {twice!r} twice")
    return page(
        "What went wrong in these answers?",
        render("label.html", categories=categories),
        lead="Each answer below is wrong. Choose the earliest error that makes it wrong; quote it if you can.",
        style=(_FOLDER / "label_page.css").read_text("utf-8"),
        data={"label-data": _data(items, analysis, categories)},
        script=(_FOLDER / "label_page.js").read_text("utf-8"),
    )


def _data(
    items: Sequence[LabelItem], analysis: str, categories: Mapping[str, str]
) -> dict[str, Any]:
    """What the script reads; a picture that several items share is there once."""
    pictures: dict[bytes, int] = {}
    entries = []
    for item in items:
        entries.append(
            {
                "item": item.item,
                "question": item.question.strip()[:MAX_CHARACTERS],
                "images": [pictures.setdefault(image, len(pictures)) for image in item.images],
                "response": item.response[:MAX_CHARACTERS],
                "characters_left_out": max(0, len(item.response) - MAX_CHARACTERS),
                "reference": item.reference[:MAX_CHARACTERS],
            }
        )
    return {
        "format": LABELS_FORMAT,
        "analysis": analysis,
        "categories": [
            {"name": name, "definition": definition} for name, definition in categories.items()
        ],
        "images": [data_uri(picture) for picture in pictures],
        "items": entries,
    }
