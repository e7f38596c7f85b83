"""One page about a data set before anything is trained on it: the first prompt as the model sees it, and what is left out."""

import io
from collections.abc import Sequence

from PIL import Image

from papo.data import Preview
from papo.reporting.html import (
    Markup,
    data_uri,
    details,
    grid,
    join,
    page,
    paragraph,
    render,
    section,
    table,
)

MAX_PICTURE_SIDE = 768
MAX_TOKENS = 2_000


def data_page(found: Preview, *, pictures: Sequence[Image.Image], tokens: Sequence[str]) -> str:
    """Returns the page.

    Args:
        found: of the data.
        pictures: of the first problem, as the vision tower sees them; empty where that is not known: then those of
            the data are shown.
        tokens: of the first prompt; empty where they are not known.
    """
    first, report = found.first, found.report
    facts = [
        ("files", ", ".join(found.files) or "none"),
        ("rows", found.rows),
        ("columns", ", ".join(found.columns) or "none"),
        ("read as", found.read_as),
        ("usable", f"{report.kept} of {report.seen}, {report.with_pictures} with pictures"),
        ("references", found.grading()),
    ]
    shown = [
        grid(map(_figure, pictures or first.images), kind="many"),
        paragraph(first.question),
        paragraph(f"Reference answer: {first.answer}"),
    ]
    if first.system_prompt:
        shown.append(paragraph(f"System prompt: {first.system_prompt}"))
    if tokens:
        cells = render("prompt_tokens.html", tokens=tokens[:MAX_TOKENS])
        shown.append(details(f"The prompt, token by token ({len(tokens)})", cells, is_open=True))
    dropped = [
        (reason, count, "; ".join(report.examples[reason]))
        for reason, count in sorted(report.dropped.items())
    ]
    left_out = table("Problems that are left out", ["reason", "count", "the first"], dropped)
    refused = table(
        "References that the reward does not call right when they are the answer",
        ["problem", "reference"],
        found.refused[:100],
    )
    return page(
        "What is read of the data",
        join(
            [
                section("data", "Data", table("", ["", ""], facts), *map(paragraph, found.notes)),
                section("first", f"The first problem, {first.id}", *shown),
                section("left-out", "Left out", left_out if dropped else paragraph("Nothing.")),
                section("graded", "Graded", refused if found.refused else paragraph("All right.")),
            ]
        ),
        style=".boxes code { border: 1px solid; border-radius: 3px; margin: 1px; white-space: pre-wrap }",
    )


def _figure(picture: Image.Image) -> Markup:
    encoded, small = io.BytesIO(), picture.copy()
    small.thumbnail((MAX_PICTURE_SIDE, MAX_PICTURE_SIDE))
    small.save(encoded, "PNG")
    return render(
        "picture.html",
        address=data_uri(encoded.getvalue()),
        words="a picture of the first problem",
        caption=f"{picture.width} x {picture.height} pixels",
    )
