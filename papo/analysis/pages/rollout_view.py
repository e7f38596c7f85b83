"""Rollouts on a page: both views of the picture, and every token coloured by its perception KL."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from papo.reporting.html import Markup, cut, data_uri, render
from papo.reporting.tokens import TOKEN_STYLE, coloured, perception_level
from papo.storage.pictures import opened_picture
from papo.storage.training_run import ChosenGroup, ShownResponse

MAX_RESPONSES, MAX_PICTURES = 5, 3
"""Shown of one group."""
MAX_TOKENS, MAX_CHARACTERS = 600, 6_000
"""Shown of one response."""
MAX_PICTURE_SIDE, MAX_PICTURE_PIXELS = 448, 40_000_000
MAX_PNG_BYTES = 60_000
"""Larger pictures are stored as JPEG."""
TOP_TOKENS = 5

ROLLOUT_STYLE = (
    TOKEN_STYLE
    + """
.views { display: flex; flex-wrap: wrap; gap: .75rem; margin: .5rem 0; }
.views figure { flex: 0 1 16rem; }
.views img { width: 16rem; }
.responses { list-style: none; padding: 0; margin: .75rem 0; display: grid; gap: .75rem; }
.responses li { background: var(--panel); border-left: .3rem solid var(--bad); border-radius: .3rem; padding: .5rem .75rem; }
.responses li.right { border-color: var(--good); }
.verdict { margin: 0; font-size: .9rem; }
@media print { .responses li { break-inside: avoid; } }
"""
)


def rollout_group(chosen: ChosenGroup, folder: Path) -> Markup:
    """Returns one prompt with its pictures and responses.

    Args:
        chosen: the group.
        folder: of the run; pictures outside it are not read.
    """
    group = chosen.group
    shown = group.responses[:MAX_RESPONSES]
    kinds = (("picture", group.images), ("masked picture", group.masked_images))
    return render(
        "rollout_group.html",
        group=group,
        reasons=chosen.reasons,
        views=[
            (f"{name} {number}" if len(paths) > 1 else name, picture_address(folder, path))
            for name, paths in kinds
            for number, path in enumerate(paths[:MAX_PICTURES], start=1)
        ],
        responses=[(one, _verdict(one), coloured_text(one)) for one in shown],
        characters=MAX_CHARACTERS,
        left_out=[
            (len(group.responses) - len(shown), "responses"),
            (sum(max(0, len(paths) - MAX_PICTURES) for _, paths in kinds), "pictures"),
        ],
    )


def _verdict(response: ShownResponse) -> str:
    verdict = "right" if response.correct else "wrong"
    errors = [
        name.removeprefix("error_").replace("_", " ")
        for name, value in response.components.items()
        if name.startswith("error_") and value
    ]
    if errors:
        return f"{verdict} ({', '.join(errors)})"
    return verdict + (" although misread" if response.components.get("correct_but_misread") else "")


def coloured_text(response: ShownResponse, *, say_why: bool = True) -> Markup:
    """Returns what was written, each token coloured by its perception KL where that is known.

    Args:
        response: what was written.
        say_why: where it is not known, why.
    """
    tokens, values = response.tokens, response.perception_kl
    if tokens is None or values is None or len(tokens) != len(values):
        reason = (
            "no masked view was scored"
            if values is None
            else "the text of its tokens is not recorded"
        )
        return render(
            "response_text.html",
            text=coloured([], [], end=cut(response.text, MAX_CHARACTERS)),
            note=f"Not coloured: {reason}." if say_why else "",
        )
    shown, characters = 0, 0
    for token in tokens[:MAX_TOKENS]:
        characters += len(token)
        if characters > MAX_CHARACTERS:
            break
        shown += 1
    left_out = len(tokens) - shown
    end = f" … {left_out:,} more tokens are not shown" if left_out else ""
    return render(
        "response_text.html",
        text=coloured(tokens[:shown], values[:shown], end=end),
        note=_top_tokens(tokens, values),
    )


def _top_tokens(tokens: Sequence[str], values: Sequence[float]) -> str:
    """The same in words: what depends most on the picture."""
    finite = [k for k, value in enumerate(values) if math.isfinite(value)]
    if not finite:
        return "No token has a finite perception KL."
    mean = sum(values[k] for k in finite) / len(finite)
    looked = sorted((k for k in finite if perception_level(values[k])), key=lambda k: -values[k])
    top = [f"“{cut(tokens[k].strip(), 40)}” {values[k]:.3g}" for k in looked[:TOP_TOKENS]]
    return f"Mean {mean:.3g} nats over {len(finite)} tokens; most at: {', '.join(top) or 'none'}"


def picture_address(folder: Path, path: str) -> str | None:
    """Returns a picture below a folder as an address that holds it; None where it cannot be read."""
    picture = read_picture(folder, path)
    return None if picture is None else data_uri(picture)


def read_picture(folder: Path, path: str) -> bytes | None:
    """Returns a PNG below a folder, small enough for a page; None where there is no such picture.

    Encoded anew: nothing of the file but its pixels reaches the page.
    """
    try:
        file = (folder / path).resolve()
        if not file.is_relative_to(folder.resolve()):
            return None
        with opened_picture(file, formats=("PNG",), max_pixels=MAX_PICTURE_PIXELS) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError):  # no such path, or no such picture
        return None
    picture.thumbnail((MAX_PICTURE_SIDE, MAX_PICTURE_SIDE))
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", optimize=True)
    if encoded.tell() > MAX_PNG_BYTES:
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=85)
    return encoded.getvalue()
