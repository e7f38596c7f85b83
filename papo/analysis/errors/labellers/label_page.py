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

from papo.reporting.html import Markup, data_uri, join, page

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
        _body(categories),
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


def _body(categories: Mapping[str, str]) -> Markup:
    buttons = join(
        Markup(
            '<button type="button" aria-pressed="false"><kbd>{}</kbd><b>{}</b><span>{}</span></button>'
        ).format(number, name.replace("_", " "), definition)
        for number, (name, definition) in enumerate(categories.items(), start=1)
    )
    return _BODY.format(buttons=buttons, count=len(categories))


_BODY = Markup(
    """<noscript><p class="notice">This page needs JavaScript; it talks to no server.</p></noscript>
<div id="notices" role="alert"></div>
<div class="bar">
<label>Your name <input type="text" id="labeller" autocomplete="off" maxlength="80"></label>
<button type="button" id="export">Export labels</button>
<label class="file">Continue from an export<input type="file" id="import" accept=".json,application/json"></label>
<button type="button" id="show-help">Help <kbd class="keys">?</kbd></button>
</div>
<div class="bar">
<strong id="position"></strong>
<progress id="progress" value="0" max="1" aria-label="Items labelled"></progress>
<span id="labelled"></span>
<span class="soft">time <span id="timer" role="timer" aria-label="Time on this item"></span></span>
<button type="button" id="previous"><kbd class="keys">p</kbd> previous</button>
<button type="button" id="next"><kbd class="keys">n</kbd> next</button>
<button type="button" id="unlabelled"><kbd class="keys">Enter</kbd> next unlabelled</button>
<button type="button" id="undo"><kbd class="keys">u</kbd> undo</button>
</div>
<p id="status" role="status" class="soft"></p>
<div class="item" id="item">
<div>
<h2 id="question-heading">Question</h2>
<p class="text" id="question" aria-labelledby="question-heading"></p>
<h2>Picture</h2>
<p id="no-picture" class="soft">This question has no picture.</p>
<div class="pictures" id="pictures"></div>
<h2 id="reference-heading">Right answer</h2>
<p class="text" id="reference" aria-labelledby="reference-heading"></p>
</div>
<div>
<h2 id="response-heading">The model's answer <span class="soft">(select text to quote it)</span></h2>
<div class="text" id="response" role="region" aria-labelledby="response-heading" tabindex="0"></div>
<p id="cut" class="soft" hidden></p>
<h2 id="categories-heading">What is the earliest error? <span class="soft keys">(keys 1 to {count})</span></h2>
<div class="categories" id="categories" role="group" aria-labelledby="categories-heading">{buttons}</div>
<div class="fields">
<label>Quote <textarea id="quote" maxlength="2000"></textarea></label>
<p id="quote-warning" class="notice" hidden>The answer does not contain this quote.</p>
<label><span>Note <span class="soft keys">(key <kbd>t</kbd>; Escape leaves it)</span></span> <textarea id="note" maxlength="2000"></textarea></label>
</div>
</div>
</div>
<dialog id="help" aria-labelledby="help-heading">
<h2 id="help-heading">Keys</h2>
<dl>
<dt><kbd>1</kbd> to <kbd>{count}</kbd></dt><dd>choose the category</dd>
<dt><kbd>n</kbd> or <kbd>&rarr;</kbd>, <kbd>p</kbd> or <kbd>&larr;</kbd></dt><dd>next item, previous item</dd>
<dt><kbd>Enter</kbd></dt><dd>next item without a label</dd>
<dt><kbd>u</kbd></dt><dd>undo the last change</dd>
<dt><kbd>t</kbd>, <kbd>Escape</kbd></dt><dd>write a note, leave it</dd>
<dt><kbd>z</kbd></dt><dd>enlarge the picture</dd>
<dt><kbd>?</kbd></dt><dd>this help; Escape closes it</dd>
</dl>
<p>Select text of the answer to quote it. Labels stay in this browser, under this page's id, until you export
them. An export continues on another machine; items labelled there already keep their labels.</p>
<p>Time counts only while this page is in front of you and something happens at least once a minute.</p>
<button type="button" id="close-help">Close</button>
</dialog>"""
)
