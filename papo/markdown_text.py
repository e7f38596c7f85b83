"""Text from outside that stays text in Markdown."""


def markdown_text(text: str) -> str:
    """Returns one line of text for a cell, a heading or an item: no new line, no column, no tag."""
    text = " ".join(text.split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")
