"""Text from outside that stays text in Markdown."""

import re
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


def replaced_table(text: str, heading: str, table: str) -> str:
    """Returns a page with a table in place of the first one below a heading.

    Raises:
        ValueError: the page has no such heading with a table, or several.
    """
    pattern = rf"(^#+ {re.escape(heading)}$(?:(?!^#).*\n)*?)(?:^\|.*\n)+"
    text, count = re.subn(pattern, lambda found: f"{found[1]}{table}\n", text, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"the page has one heading {heading!r} with a table below; got {count}")
    return text
