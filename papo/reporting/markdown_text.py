"""Text from outside that stays text in Markdown."""

from collections.abc import Sequence


def markdown_text(text: str) -> str:
    """Returns one line of text for a cell, a heading or an item: no new line, no column, no tag."""
    text = " ".join(text.split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")


def markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int | None = None
) -> str:
    """Returns a table whose cells are text.

    Args:
        columns: their headings.
        rows: a cell for each column.
        texts: so many columns are words, and what follows are numbers, flush right; None: all are words.
    """
    words = len(columns) if texts is None else texts
    rule = [*["---"] * words, *["---:"] * (len(columns) - words)]
    return "\n".join(
        "| " + " | ".join(map(markdown_text, line)) + " |" for line in (columns, rule, *rows)
    )
