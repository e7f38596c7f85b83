"""Text from outside that stays text in Markdown."""

from collections.abc import Sequence


def markdown_text(text: str) -> str:
    """Returns one line of text for a cell, a heading or an item: no new line, no column, no tag."""
    text = " ".join(text.split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table whose cells are text."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(markdown_text, line)) + " |" for line in lines)
