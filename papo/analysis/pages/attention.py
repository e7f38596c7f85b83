"""Where a policy looked, as far as attention tells: heat maps over pictures, and the numbers per layer.

The paper shows such maps in its Figure 7 and the entropy of the attention in its Table 9
(arXiv:2507.06448v5). What is measured here stands in papo/evaluation/probe/attention.py.
"""

import io
from collections.abc import Mapping, Sequence
from math import inf, isfinite, log, nan
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from papo.analysis.pages.rollout_view import (
    MAX_CHARACTERS,
    MAX_PICTURE_SIDE,
    MAX_PICTURES,
    ROLLOUT_STYLE,
)
from papo.reporting.charts import Series, line_chart
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
from papo.statistics import t_interval
from papo.storage.evaluated_run import EvaluatedRun, ItemKey
from papo.storage.pictures import open_picture

_MIN_PICTURE_SIDE = 224  # pixels; the lab's pictures are smaller than a thumb
_HOT, _STRONGEST = (226, 70, 0), 0.8  # colour, and its opacity from `FULL_COLOUR` on
FULL_COLOUR = 4.0
"""Times the mean of a picture's cells; up to the mean there is no colour. The same on every page."""

_MEASURED = (
    "Measured in the language model, on the row that predicts each token of a response, averaged over heads: the "
    "share of the attention that goes to image tokens, and the entropy of the attention over the image tokens "
    "alone. Attention is not an explanation: what a layer attends to need not be what decides the answer, and "
    "tokens that many rows attend to may say nothing."
)

_STYLE = """
.scale { max-width: 26rem; margin: .5rem 0; }
.scale div { height: .8rem; border: 1px solid var(--line); background-color: #999; }
.scale figcaption { display: flex; justify-content: space-between; }
"""

Row = Mapping[str, Any]
"""One line of attention.jsonl."""


def attention_page(
    runs: Sequence[EvaluatedRun],
    rows: Sequence[Row],
    *,
    shown: int,
    notes: Sequence[str],
) -> str:
    """Returns one self-contained HTML page.

    Args:
        runs: one evaluation, or two of the same problems.
        rows: what was measured of their responses; of one policy all have the same layers.
        shown: of so many problems the heat maps are shown, the first ones.
        notes: what a reader must know of the measurement.

    Raises:
        ValueError: nothing was measured of a run, or `shown` is negative.
    """
    if shown < 0:
        raise ValueError(f"heat maps of 0 or more problems are shown; got {shown}. Set --shown.")
    found = {
        run.name: {_slot(row): row for row in rows if row["evaluation"] == run.name} for run in runs
    }
    for name, measured in found.items():
        if not measured:
            raise ValueError(
                f"no response of {name} could be measured: none has a picture and text"
            )
    common = [slot for slot in found[runs[0].name] if all(slot in one for one in found.values())]
    return page(
        "Attention on the picture",
        join(
            [
                paragraph(_MEASURED),
                *(paragraph(note, kind="notice") for note in notes),
                section("numbers", "Mean over layers", _summary(found, common)),
                section("layers", "Layer by layer", _layers(found)),
                section(
                    "maps",
                    "Heat maps",
                    paragraph(
                        "Mean over layers, heads and tokens, against the mean over the cells of the picture: what "
                        "has the attention that it would have if all cells shared it evenly has no colour."
                    ),
                    render(
                        "colour_scale.html",
                        low="the mean or less",
                        high=f"{FULL_COLOUR:g} times the mean or more",
                        colour=" ".join(map(str, _HOT)),
                        strongest=100 * _STRONGEST,
                    ),
                    *(_maps(runs, slot, found) for slot in common[:shown]),
                ),
            ],
            "\n",
        ),
        lead=", ".join(f"{name}: {len(one):,} responses" for name, one in found.items()),
        contents={"numbers": "Mean over layers", "layers": "Layer by layer", "maps": "Heat maps"},
        style=ROLLOUT_STYLE + _STYLE,
    )


def heat_picture(picture: Image.Image, heat: Float[np.ndarray, "row column"]) -> Image.Image:
    """Returns the picture in grey, the cells above the mean of `heat` coloured (see `FULL_COLOUR`)."""
    scale = _MIN_PICTURE_SIDE / max(picture.size)
    if scale > 1:
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
        )
    mean = heat.mean()
    above = heat / mean - 1 if mean > 0 else np.zeros(heat.shape)
    opacity = (above / (FULL_COLOUR - 1)).clip(0, 1) * _STRONGEST
    cells = Image.fromarray((255 * opacity).round().astype(np.uint8))
    mask = cells.resize(picture.size, Image.Resampling.NEAREST)
    grey = picture.convert("L").convert("RGB")
    return Image.composite(Image.new("RGB", picture.size, _HOT), grey, mask)


def split_heat(row: Row) -> list[Float[np.ndarray, "row column"]]:
    """Returns the heat of each picture of a response, rows by columns of image tokens.

    Raises:
        ValueError: the numbers are not as many as the grids have cells.
    """
    sizes = [rows * columns for rows, columns in row["grids"]]
    heat = np.array(row["heat"], dtype=float)
    if len(heat) != sum(sizes):
        raise ValueError(f"grids {row['grids']} have {sum(sizes)} cells; got {len(heat)} numbers")
    parts = np.split(heat, np.cumsum(sizes)[:-1])
    return [part.reshape(grid) for part, grid in zip(parts, row["grids"], strict=True)]


Slot = tuple[ItemKey, int]


def _slot(row: Row) -> Slot:
    return (row["benchmark"], row["problem_id"]), row["response_index"]


def _share(row: Row) -> float:
    return float(np.mean(row["image_share"]))


def _entropy(row: Row) -> float | None:
    """Nats, mean over the layers that attend to the picture at all."""
    known = [value for value in row["image_entropy"] if value is not None]
    return float(np.mean(known)) if known else None


def _entropy_share(row: Row) -> float | None:
    entropy, even = _entropy(row), log(len(row["heat"]))
    return None if entropy is None or even == 0 else entropy / even


_MEASURES = {
    "share of the attention on the picture": _share,
    "entropy over the picture, nats": _entropy,
    "entropy / log(image tokens)": _entropy_share,
}


def _summary(found: Mapping[str, Mapping[Slot, Row]], common: Sequence[Slot]) -> Markup:
    names = list(found)
    rows = []
    for name, measure in _MEASURES.items():
        cells: list[str] = [name]
        most = inf if measure is _entropy else 1.0
        for one in found.values():
            known = [value for row in one.values() if (value := measure(row)) is not None]
            cells.append(_interval(known, (0.0, most)))
        if len(names) == 2:
            pairs = [[measure(found[run][slot]) for run in names] for slot in common]
            cells.append(
                _interval(
                    [b - a for a, b in pairs if a is not None and b is not None], (-most, most)
                )
            )
        rows.append(cells)
    columns = ["", *names, *(["second - first"] if len(names) == 2 else [])]
    return table("Mean over responses [95 % t interval over problems]", columns, rows)


def _interval(values: Sequence[float], bounds: tuple[float, float]) -> str:
    if not values:
        return "unknown"
    mean, interval = sum(values) / len(values), t_interval(values, bounds=bounds)
    if interval is None:
        return f"{mean:.4f} [n = {len(values)}: no interval]"
    return f"{mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _layers(found: Mapping[str, Mapping[Slot, Row]]) -> Markup:
    """A chart per measure, and the same numbers folded."""
    depth = max(len(row["image_share"]) for one in found.values() for row in one.values())
    layers = range(depth)
    means = {
        measure: {
            run: [_layer_mean(one, layer, measure) for layer in layers]
            for run, one in found.items()
        }
        for measure in ("image_share", "image_entropy")
    }
    titles = {
        "image_share": "Share of the attention on the picture",
        "image_entropy": "Entropy over the picture, nats",
    }
    charts = [
        line_chart(
            titles[measure],
            [1 + layer for layer in layers],
            [Series(name=run, values=values) for run, values in of_runs.items()],
            is_percent=measure == "image_share",
            along="layer",
        )
        for measure, of_runs in means.items()
    ]
    columns = [f"{run}: {name}" for name in ("share", "entropy") for run in found]
    values = [row for of_runs in means.values() for row in of_runs.values()]
    numbers = table(
        "Mean over responses; entropy in nats",
        ["layer", *columns],
        [[str(1 + k), *(_number(row[k]) for row in values)] for k in layers],
    )
    return join([grid(charts if depth > 1 else [], kind="few"), details("The numbers", numbers)])


def _layer_mean(one: Mapping[Slot, Row], layer: int, name: str) -> float:
    known = [
        row[name][layer]
        for row in one.values()
        if layer < len(row[name]) and row[name][layer] is not None
    ]
    return float(np.mean(known)) if known else nan


def _number(value: float) -> str:
    return f"{value:.4f}" if isfinite(value) else "unknown"


def _maps(
    runs: Sequence[EvaluatedRun], slot: Slot, found: Mapping[str, Mapping[Slot, Row]]
) -> Markup:
    key, index = slot
    sides = []
    for run in runs:
        row, maps = found[run.name][slot], []
        for path, heat in list(zip(run.problems[key].images, split_heat(row), strict=False))[
            :MAX_PICTURES
        ]:
            picture = open_picture(path, max_side=MAX_PICTURE_SIDE)
            if picture is not None:
                maps.append((_encoded(heat_picture(picture, heat)), _caption(heat)))
        sides.append((run.name, run.responses[key][index], _share(row), maps))
    return render(
        "attention_maps.html",
        question=runs[0].problems[key].question.replace("<image>", "").strip(),
        slot=f"{key[0]} {key[1][:200]}, response {index}",
        sides=sides,
        characters=MAX_CHARACTERS,
    )


def _encoded(picture: Image.Image) -> str:
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=85)
    return data_uri(encoded.getvalue())


def _caption(heat: Float[np.ndarray, "row column"]) -> str:
    mean = heat.mean()
    peak = "nothing" if mean <= 0 else f"{heat.max() / mean:.1f} times the mean"
    row, column = (int(place) + 1 for place in np.unravel_index(heat.argmax(), heat.shape))
    return f"{heat.shape[0]} x {heat.shape[1]} image tokens; brightest: row {row}, column {column}, {peak}"
