"""A response as HTML, each token coloured by its perception KL."""

import html
import math
from collections.abc import Sequence

FULL_COLOUR_NATS = 1.0
"""Tokens of this perception KL and more have the full colour, in every run, so pictures compare."""


def heat_map(tokens: Sequence[str], perception_kl: Sequence[float]) -> str:
    """Returns a self-contained piece of HTML; the text is escaped, the number in each token's title.

    Args:
        tokens: the text of each token.
        perception_kl: of each token, nats; what rounding leaves below 0 counts as 0.
    """
    spans = [
        f'<span title="{value:.3f} nats" style="background:rgba(217,95,2,{_opacity(value):.2f})">'
        f"{html.escape(token)}</span>"
        for token, value in zip(tokens, perception_kl, strict=True)
    ]
    return (
        '<div style="font:14px/1.7 monospace;white-space:pre-wrap;overflow-wrap:anywhere;'
        f'color:#111;background:#fff;padding:4px">{"".join(spans)}'
        '<div style="font:12px sans-serif;color:#444">perception KL of each token: white 0, '
        f"orange {FULL_COLOUR_NATS:g} nat and more</div></div>"
    )


def _opacity(value: float) -> float:
    return min(1.0, max(0.0, value / FULL_COLOUR_NATS)) if math.isfinite(value) else 1.0
