"""The shell of every page: one file, no network, and data that can never become markup.

HTML stands in templates/, filled by Jinja with autoescaping: whatever is not `Markup` is escaped where it is put
in, so text of a model or a data set stays text; it is never a template itself. The page's Content-Security-Policy
is the second wall: it loads nothing, and runs only the script it came with.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

__all__ = [
    "Cell",
    "Markup",
    "code",
    "cut",
    "data_uri",
    "details",
    "escape",
    "grid",
    "heading",
    "join",
    "json_for_script",
    "page",
    "paragraph",
    "render",
    "section",
    "table",
]

_FOLDER = Path(__file__).parent
_STYLES = ("colours.css", "page.css", "charts.css")
_LETTER, _CELL = 7.6, 15  # pixels: a letter of a table, and what a cell adds
_WIDEST = 84  # rem, of the page
_WIDTHS = (*range(22, _WIDEST, 4), 999)  # rem, of windows: a table says from which down it is wider

_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["cut"] = lambda text, length: cut(text, length)


def render(template: str, /, **values: Any) -> Markup:
    """Returns a template of templates/, filled; values that are not Markup are escaped."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def page(
    title: str,
    body: Markup,
    *,
    lead: Markup | str = "",
    contents: Mapping[str, str] | None = None,
    style: str = "",
    data: Mapping[str, Any] | None = None,
    script: str = "",
) -> str:
    """Returns a whole HTML document that needs nothing but itself.

    Args:
        title: of the window, and the one h1.
        body: goes into <main>; headings begin at h2.
        lead: a paragraph under the title; text is wrapped in <p>.
        contents: anchor of a section -> its heading, for the navigation.
        style: further CSS, ours; never text from data.
        data: element id -> value, readable by the script as JSON (see `json_for_script`).
        script: JavaScript, ours; never text from data. Nothing else on the page can run.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return str(
        render(
            "page.html",
            title=title,
            body=body,
            lead=lead if isinstance(lead, Markup) or not lead else paragraph(lead),
            contents=contents or {},
            style=Markup(_style() + style),
            data={name: Markup(json_for_script(value)) for name, value in (data or {}).items()},
            script=Markup(script),
            allowed=f"'sha256-{digest}'" if script else "'none'",
        )
    )


def section(anchor: str, heading: str, *parts: Markup) -> Markup:
    """Returns a landmark with its heading (h2), named by it."""
    return _part("section", anchor, heading, join(parts, "\n"))


def heading(text: str) -> Markup:
    """Returns a heading below that of a section (h3)."""
    return _part("heading", text)


def paragraph(text: Markup | str, *, kind: str = "") -> Markup:
    """Returns a paragraph; `kind` is a class of the style sheet: "soft" or "notice"."""
    return _part("paragraph", text, kind)


def details(summary: str, *parts: Markup, is_open: bool = False) -> Markup:
    """Returns something to unfold."""
    return _part("details", summary, join(parts, "\n"), is_open)


def grid(parts: Iterable[Any], *, kind: str = "") -> Markup:
    """Returns charts or pictures in as many columns as the window has room for; `kind` is "few", "many" or ""."""
    return _part("grid", list(parts), kind)


def code(text: str) -> Markup:
    """Returns text as it stands in a file."""
    return _part("code", text)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table with a background.

    Attributes:
        text: what it says.
        shade: how strong its background is, 0 to 1.
    """

    text: str
    shade: float

    def __str__(self) -> str:
        return self.text


def table(caption: str, columns: Sequence[Markup | str], rows: Iterable[Sequence[Any]]) -> Markup:
    """Returns a table whose first column names the rows; wide ones scroll by themselves, and say so.

    Args:
        caption: says what the numbers are, units included.
        columns: the headings.
        rows: as many cells as there are columns; whatever is not Markup is escaped.

    Raises:
        ValueError: a row of another length.
    """
    rows = list(rows)
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(
                f"the table has {len(columns)} columns; got a row of {len(row)}: {row}"
            )
    width = sum(
        _CELL + _LETTER * max(map(_longest_word, column))
        for column in zip(columns, *rows, strict=True)
    )
    rems = next((step for step in _WIDTHS if width <= 16 * step - 32), _WIDTHS[-1])
    return _part("table", caption, columns, rows, rems)


def join(parts: Iterable[Markup | str], separator: str = "") -> Markup:
    """Returns the parts one after another; those that are not Markup are escaped."""
    return Markup(separator).join(parts)


def cut(text: str, length: int) -> str:
    """Returns a text of at most so many characters, and how many more there are."""
    left_out = len(text) - length
    return text if left_out <= 0 else f"{text[:length]} … ({left_out:,} more characters)"


def json_for_script(value: Any) -> str:
    """Returns JSON that can stand inside <script>: no character of it can end the element.

    Raises:
        ValueError: a number is not finite; JSON has no such numbers.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def data_uri(picture: bytes) -> str:
    """Returns a PNG, JPEG or WebP picture as an address that holds it.

    Raises:
        ValueError: the bytes begin like none of these.
    """
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = "png"
    elif picture.startswith(b"\xff\xd8\xff"):
        kind = "jpeg"
    elif picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
        kind = "webp"
    else:
        raise ValueError(f"a picture on a page is PNG, JPEG or WebP; got bytes {picture[:12]!r}")
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


@cache
def _style() -> str:
    """The style sheet of every page."""
    wider = (
        f"@media (max-width: {rems}rem) {{ caption .wider-than-{rems} {{ display: inline; }} }}\n"
        for rems in _WIDTHS
    )
    return "".join([*((_FOLDER / name).read_text("utf-8") for name in _STYLES), *wider])


def _part(name: str, *values: Any) -> Markup:
    """A macro of parts.html, which templates call too."""
    return Markup(vars(_TEMPLATES.get_template("parts.html").module)[name](*values))


def _longest_word(cell: Any) -> int:
    text = cell.striptags() if isinstance(cell, Markup) else str(cell)
    return max(map(len, re.split(r"[ \n-]", text)), default=0)
