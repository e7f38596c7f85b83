"""Tokens coloured by their perception KL: one scale, on every page and in what W&B shows."""

import math
from collections.abc import Sequence
from itertools import pairwise

from papo.reporting.html import Markup, render

LEVELS = (0.01, 0.05, 0.2, 1.0, 5.0)
"""Upper bounds of the colour steps, nats; the same everywhere, so that pages and runs can be compared."""

TOKEN_STYLE = """
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; margin: .35rem 0; max-width: none; font-size: .95rem; line-height: 1.9; }
.k1 { background: rgb(217 95 2 / 12%); }
.k2 { background: rgb(217 95 2 / 22%); border-bottom: 1px solid currentColor; }
.k3 { background: rgb(217 95 2 / 34%); border-bottom: 2px solid currentColor; }
.k4 { background: rgb(217 95 2 / 46%); border-bottom: 3px solid currentColor; }
.k5 { background: rgb(217 95 2 / 58%); border-bottom: 4px double currentColor; }
.key { display: flex; flex-wrap: wrap; gap: .25rem .75rem; list-style: none; padding: 0; margin: .5rem 0; font-size: .875rem; }
.key span { padding: 0 .5rem; }
@media print { .tokens span { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def perception_level(value: float) -> int:
    """Returns the colour step of a perception KL in nats: 0 where it is no number, 5 over the last bound."""
    return 0 if math.isnan(value) else sum(value > bound for bound in LEVELS)


def coloured(tokens: Sequence[str], perception_kl: Sequence[float], *, end: str = "") -> Markup:
    """Returns the tokens in a paragraph, each with its colour and its number.

    Args:
        tokens: the text of each.
        perception_kl: of each, nats.
        end: follows them.
    """
    spans = [
        (perception_level(value), nats(value), token)
        for token, value in zip(tokens, perception_kl, strict=True)
    ]
    return render("tokens.html", spans=spans, end=end)


def colour_key(when: str) -> Markup:
    """Returns what the colours and lines under a token mean, and when they were measured."""
    bounds = ["0", *(f"{bound:g}" for bound in LEVELS)]
    steps = [f"{low} to {high}" for low, high in pairwise(bounds)]
    return render("token_key.html", when=when, steps=[*steps, f"over {bounds[-1]}"])


def heat_map(tokens: Sequence[str], perception_kl: Sequence[float]) -> str:
    """Returns a response as a piece of HTML that stands alone, as W&B shows it.

    Args:
        tokens: the text of each token; it is escaped.
        perception_kl: of each token, nats; what rounding leaves below 0 counts as 0.
    """
    return str(
        render(
            "heat_map.html",
            style=Markup(TOKEN_STYLE),
            key=colour_key("right after the update"),
            text=coloured(tokens, perception_kl),
        )
    )


def nats(value: float) -> str:
    """Returns a perception KL in words."""
    return f"{value:.3g} nats" if math.isfinite(value) else "not a finite number"
