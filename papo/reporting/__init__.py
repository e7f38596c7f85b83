"""How results are written down, whatever they are: pages, charts, Markdown, CSV."""
