"""Rollouts on a page: both views of the picture, and every token coloured by its perception KL."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from papo.reporting.html import Markup, data_uri, join, paragraph
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

LEVELS = (0.01, 0.05, 0.2, 1.0, 5.0)
"""Upper bounds of the colour steps, nats; the same on every page, so that pages can be compared."""

ROLLOUT_STYLE = """
.views { display: flex; flex-wrap: wrap; gap: .75rem; margin: .5rem 0; }
.views figure { flex: 0 1 16rem; }
.views img { width: 16rem; }
.responses { list-style: none; padding: 0; margin: .75rem 0; display: grid; gap: .75rem; }
.responses li { background: var(--panel); border-left: .3rem solid var(--bad); border-radius: .3rem; padding: .5rem .75rem; }
.responses li.right { border-color: var(--good); }
.verdict { margin: 0; font-size: .9rem; }
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; margin: .35rem 0; max-width: none; font-size: .95rem; line-height: 1.9; }
.k1 { background: rgb(217 95 2 / 12%); }
.k2 { background: rgb(217 95 2 / 22%); border-bottom: 1px solid currentColor; }
.k3 { background: rgb(217 95 2 / 34%); border-bottom: 2px solid currentColor; }
.k4 { background: rgb(217 95 2 / 46%); border-bottom: 3px solid currentColor; }
.k5 { background: rgb(217 95 2 / 58%); border-bottom: 4px double currentColor; }
.key { display: flex; flex-wrap: wrap; gap: .25rem .75rem; list-style: none; padding: 0; margin: .5rem 0; font-size: .875rem; }
.key span { padding: 0 .5rem; }
@media print { .responses li { break-inside: avoid; } .tokens span { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def colour_key(when: str = "right after the update") -> Markup:
    """Returns what the colours and lines under a token mean, and when they were measured."""
    bounds = ["0", *(f"{bound:g}" for bound in LEVELS)]
    entries = [
        Markup('<li><span class="k{}">{}</span></li>').format(
            level, f"{bounds[level]} to {bounds[level + 1]}"
        )
        for level in range(len(LEVELS))
    ]
    entries.append(
        Markup('<li><span class="k{}">{}</span></li>').format(len(LEVELS), f"over {bounds[-1]}")
    )
    return Markup('{}<ul class="key">{}</ul>').format(
        paragraph(
            "Colour and line under a token: its perception KL in nats, the policy with the picture against "
            f"the policy with the masked one, {when}. Hover over a token for its value."
        ),
        join(entries),
    )


def rollout_group(chosen: ChosenGroup, folder: Path) -> Markup:
    """Returns one prompt with its pictures and responses.

    Args:
        chosen: the group.
        folder: of the run; pictures outside it are not read.
    """
    group = chosen.group
    shown = group.responses[:MAX_RESPONSES]
    left_out = len(group.responses) - len(shown)
    views = [
        _view(folder, path, f"{name} {number}" if len(paths) > 1 else name)
        for name, paths in (("picture", group.images), ("masked picture", group.masked_images))
        for number, path in enumerate(paths[:MAX_PICTURES], start=1)
    ]
    unseen = sum(max(0, len(p) - MAX_PICTURES) for p in (group.images, group.masked_images))
    return Markup(
        "<article><h3>Rollout {step}, {reasons}: problem {problem}</h3>\n{views}"
        '<p class="tokens">{prompt}</p><p>Right answer: {answer}. Mean reward of {count} responses: '
        '{reward}.</p>\n<ol class="responses">{responses}</ol>{left_out}</article>\n'
    ).format(
        step=group.rollout_step,
        reasons=" and ".join(chosen.reasons),
        problem=_cut(group.problem, 200),
        views=Markup('<div class="views">{}</div>\n').format(join(views)) if views else "",
        prompt=_cut(group.prompt, MAX_CHARACTERS),
        answer=_cut(group.answer, 500),
        count=len(group.responses),
        reward=f"{group.mean_reward:.3g}",
        responses=join(_response(response) for response in shown),
        left_out=join(
            paragraph(text, kind="soft")
            for number, text in (
                (left_out, f"{left_out} more responses are not shown."),
                (unseen, f"{unseen} more pictures are not shown."),
            )
            if number
        ),
    )


def _response(response: ShownResponse) -> Markup:
    verdict = "right" if response.correct else "wrong"
    errors = [
        name.removeprefix("error_").replace("_", " ")
        for name, value in response.components.items()
        if name.startswith("error_") and value
    ]
    if errors:
        verdict += f" ({', '.join(errors)})"
    elif response.components.get("correct_but_misread"):
        verdict += " although misread"
    return Markup(
        '<li class="{}"><p class="verdict"><strong>{}</strong>, reward {}</p>{}</li>'
    ).format(
        "right" if response.correct else "wrong",
        verdict,
        f"{response.reward:.3g}",
        coloured_text(response),
    )


def coloured_text(response: ShownResponse) -> Markup:
    """Returns what was written, each token coloured by its perception KL where that is known."""
    tokens, values = response.tokens, response.perception_kl
    if tokens is None or values is None or len(tokens) != len(values):
        reason = (
            "no masked view was scored"
            if values is None
            else "the text of its tokens is not recorded"
        )
        return Markup('<p class="tokens">{}</p>{}').format(
            _cut(response.text, MAX_CHARACTERS),
            paragraph(f"Not coloured: {reason}.", kind="soft"),
        )
    spans, characters = [], 0
    for token, value in zip(tokens[:MAX_TOKENS], values, strict=False):
        if characters + len(token) > MAX_CHARACTERS:
            break
        characters += len(token)
        spans.append(
            Markup('<span class="k{}" title="{}">{}</span>').format(
                perception_level(value), _nats(value), token
            )
        )
    left_out = len(tokens) - len(spans)
    return Markup('<p class="tokens">{}{}</p>{}').format(
        join(spans),
        f" … {left_out:,} more tokens are not shown" if left_out else "",
        _top_tokens(tokens, values),
    )


def perception_level(value: float) -> int:
    """Returns the colour step of a perception KL in nats: 0 where it is no number, 5 over the last bound."""
    if math.isnan(value):
        return 0
    return sum(value > bound for bound in LEVELS)


def _top_tokens(tokens: Sequence[str], values: Sequence[float]) -> Markup:
    """The same in words: what depends most on the picture."""
    finite = [k for k, value in enumerate(values) if math.isfinite(value)]
    if not finite:
        return paragraph("No token has a finite perception KL.", kind="soft")
    mean = sum(values[k] for k in finite) / len(finite)
    looked = sorted((k for k in finite if perception_level(values[k])), key=lambda k: -values[k])
    top = [f"“{_cut(tokens[k].strip(), 40)}” {values[k]:.3g}" for k in looked[:TOP_TOKENS]]
    return paragraph(
        f"Mean {mean:.3g} nats over {len(finite)} tokens; most at: {', '.join(top) or 'none'}",
        kind="soft",
    )


def _nats(value: float) -> str:
    return f"{value:.3g} nats" if math.isfinite(value) else "not a finite number"


def _cut(text: str, length: int) -> str:
    left_out = len(text) - length
    return text if left_out <= 0 else f"{text[:length]} … ({left_out:,} more characters)"


def _view(folder: Path, path: str, name: str) -> Markup:
    picture = read_picture(folder, path)
    if picture is None:
        return Markup("<figure><figcaption>{}: cannot be read</figcaption></figure>").format(name)
    return Markup('<figure><img src="{}" alt="{}"><figcaption>{}</figcaption></figure>').format(
        data_uri(picture), f"The {name} as the policy saw it", name
    )


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
