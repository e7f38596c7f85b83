"""The shell of every page: one file, no network, and data that can never become markup.

A page is built of `Markup`; whatever is not `Markup` is escaped where it is put in
(`Markup("<b>{}</b>").format(text)`), so text of a model or a data set stays text. The page's
Content-Security-Policy is the second wall: it loads nothing, and runs only the script it came with.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

__all__ = [
    "Markup",
    "data_uri",
    "details",
    "escape",
    "join",
    "json_for_script",
    "page",
    "paragraph",
    "section",
    "table",
]

_FOLDER = Path(__file__).parent

_PAGE = Markup(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<h1>{title}</h1>
{lead}
{contents}
</header>
<main id="content">
{body}
</main>
{script}
</body>
</html>
"""
)


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
    scripts = f"'sha256-{digest}'" if script else "'none'"
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src {scripts}"
    )
    blocks = [
        Markup('<script type="application/json" id="{}">{}</script>').format(
            name, Markup(json_for_script(value))
        )
        for name, value in (data or {}).items()
    ]
    if script:
        blocks.append(Markup("<script>") + Markup(script) + Markup("</script>"))
    links = [
        Markup('<li><a href="#{}">{}</a></li>').format(anchor, heading)
        for anchor, heading in (contents or {}).items()
    ]
    return str(
        _PAGE.format(
            policy=policy,
            title=title,
            style=Markup((_FOLDER / "page.css").read_text("utf-8") + style),
            lead=lead if isinstance(lead, Markup) or not lead else paragraph(lead),
            contents=Markup('<nav aria-label="Sections"><ul>{}</ul></nav>').format(join(links))
            if links
            else "",
            body=body,
            script=join(blocks, "\n"),
        )
    )


def section(anchor: str, heading: str, *parts: Markup) -> Markup:
    """Returns a landmark with its heading (h2), named by it."""
    return Markup('<section aria-labelledby="{0}"><h2 id="{0}">{1}</h2>\n{2}\n</section>\n').format(
        anchor, heading, join(parts, "\n")
    )


def paragraph(text: Markup | str, *, kind: str = "") -> Markup:
    """Returns a paragraph; `kind` is a class of the style sheet: "soft" or "notice"."""
    return (
        Markup('<p class="{}">{}</p>').format(kind, text)
        if kind
        else Markup("<p>{}</p>").format(text)
    )


def details(summary: str, *parts: Markup, is_open: bool = False) -> Markup:
    """Returns something to unfold."""
    return Markup("<details{}><summary>{}</summary>\n{}\n</details>").format(
        Markup(" open") if is_open else "", summary, join(parts, "\n")
    )


def table(caption: str, columns: Sequence[Markup | str], rows: Iterable[Sequence[Any]]) -> Markup:
    """Returns a table whose first column names the rows; wide ones scroll by themselves.

    Args:
        caption: says what the numbers are, units included.
        columns: the headings.
        rows: as many cells as there are columns; whatever is not Markup is escaped.

    Raises:
        ValueError: a row of another length.
    """
    lines = []
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(
                f"the table has {len(columns)} columns; got a row of {len(row)}: {row}"
            )
        cells = [Markup('<th scope="row">{}</th>').format(row[0])]
        cells += [Markup("<td>{}</td>").format(cell) for cell in row[1:]]
        lines.append(Markup("<tr>{}</tr>").format(join(cells)))
    head = join(Markup('<th scope="col">{}</th>').format(column) for column in columns)
    # Focusable, so that a keyboard can scroll it.
    return Markup(
        '<div class="scroll" role="region" aria-label="{0}" tabindex="0"><table><caption>{0}</caption>\n'
        "<thead><tr>{1}</tr></thead>\n<tbody>\n{2}\n</tbody></table></div>"
    ).format(caption, head, join(lines, "\n"))


def join(parts: Iterable[Markup | str], separator: str = "") -> Markup:
    """Returns the parts one after another; those that are not Markup are escaped."""
    return Markup(separator).join(parts)


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
