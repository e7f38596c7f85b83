"""The page of attention maps: cells where they belong, honest differences, and hostile text."""

import math
from html import unescape

import numpy as np
import pytest
from analysis.chromium import PHONE
from analysis.evaluation_fixtures import record, write_evaluation
from PIL import Image

from papo.analysis.pages.attention import (
    FULL_COLOUR,
    attention_page,
    heat_picture,
    split_heat,
)
from papo.storage.evaluated_run import read_evaluated_runs


def row(evaluation, problem=0, **changes):
    values = {
        "evaluation": evaluation,
        "benchmark": "geo3k",
        "problem_id": f"p{problem}",
        "response_index": 0,
        "num_tokens": 3,
        "image_share": (0.2, 0.4),
        "image_entropy": (math.log(4), math.log(4)),
        "grids": ((2, 2),),
        "heat": (0.0, 0.3, 0.0, 0.0),
    }
    return {**values, **changes}


def runs(tmp_path, *names, question="<image> How long?", text="so long"):
    folders = [
        write_evaluation(tmp_path / name, [record(i, text) for i in range(3)], question=question)
        for name in names
    ]
    return read_evaluated_runs(folders, view="image", require_finished=True)


def built(runs, rows, *, shown=8, notes=()):
    return attention_page(runs, rows, shown=shown, notes=notes)


def test_a_cell_is_coloured_where_its_image_token_lies():
    heat = np.array([[0.0, 0.0, 0.1], [0.0, 0.0, 0.0]])
    picture = heat_picture(Image.new("RGB", (300, 240), "white"), heat)
    pixels = np.asarray(picture).astype(int)
    coloured = (pixels != 255).any(axis=2)
    assert coloured[:120, 200:].all()
    assert not coloured[120:].any()
    assert not coloured[:, :200].any()


def test_the_colour_is_what_a_cell_has_above_the_mean_on_one_scale():
    white = Image.new("RGB", (240, 240), "white")

    def colour_of(*cells):
        picture = heat_picture(white, np.array([cells]))
        return 255 - np.asarray(picture).astype(int)[:, -10:].reshape(-1, 3)[0]

    # Of eight cells with a mean of 1, the last has 4, 2.5 and 1 times it: full colour, half, none.
    full, half, even = (colour_of(*[(8 - x) / 7] * 7, x) for x in (4.0, 2.5, 1.0))
    assert full.max() > 100
    assert (abs(full - 2 * half) <= 3).all()
    assert (even == 0).all()
    assert (colour_of(*[0.0] * 8) == 0).all(), "no attention at all"
    assert (colour_of(*[0.0] * 19, 20.0) == full).all(), "over the end of the scale"


def test_small_pictures_are_enlarged():
    small = heat_picture(Image.new("RGB", (56, 28)), np.ones((1, 2)))
    assert small.size == (224, 112)


def test_heat_is_split_over_several_pictures_row_by_row():
    first, second = split_heat(row("a", grids=((1, 2), (2, 1)), heat=(1.0, 2.0, 3.0, 4.0)))
    assert first.tolist() == [[1.0, 2.0]]
    assert second.tolist() == [[3.0], [4.0]]
    with pytest.raises(ValueError, match="4 cells; got 3"):
        split_heat(row("a", heat=(1.0, 2.0, 3.0)))


def test_the_numbers_are_means_over_layers_and_responses(tmp_path):
    rows = [
        row("a", 0),
        row("a", 1, image_share=(0.0, 0.1), image_entropy=(None, math.log(2))),
        row("b", 0, image_share=(0.5, 0.5)),
        row("b", 1, image_share=(0.3, 0.3), image_entropy=(0.0, 0.0)),
    ]
    text = built(runs(tmp_path, "a", "b"), rows)
    # (0.3 + 0.05) / 2, (0.5 + 0.3) / 2 and the mean of 0.2 and 0.25.
    for value in ("0.1750 [", "0.4000 [", "0.2250 ["):
        assert value in text
    # Entropies of a: log 4 and log 2, of four tokens 1 and 1/2.
    assert f"{(math.log(4) + math.log(2)) / 2:.4f} [" in text
    assert "0.7500 [" in text
    assert text.count("<article>") == 2


def test_problems_that_one_run_lacks_are_in_no_difference_and_have_no_map(tmp_path):
    rows = [row("a", 0), row("a", 1, image_share=(0.9, 0.9)), row("b", 0)]
    text = built(runs(tmp_path, "a", "b"), rows)
    assert text.count("<article>") == 1
    assert "0.0000 [n = 1: no interval]" in text


def test_the_page_has_one_scale_and_maps_side_by_side(tmp_path):
    text = built(runs(tmp_path, "a", "b"), [row("a"), row("b")])
    assert text.count('class="scale"') == 1
    assert f"{FULL_COLOUR:g} times the mean or more" in text
    assert text.count('<ul class="responses pair">') == 1
    assert text.count("heat map of the attention") == 2
    assert text.count('role="img" aria-label="Share of the attention on the picture: a from') == 1


def test_one_evaluation_alone_has_no_difference(tmp_path):
    text = built(runs(tmp_path, "a"), [row("a")], shown=0)
    assert "second - first" not in text
    assert "<article>" not in text


def test_a_run_of_which_nothing_is_known_is_refused(tmp_path):
    some = runs(tmp_path, "a", "b")
    with pytest.raises(ValueError, match="no response of b"):
        built(some, [row("a")])
    with pytest.raises(ValueError, match="--shown"):
        built(some, [row("a"), row("b")], shown=-1)


def test_hostile_text_stays_text_and_the_page_needs_nothing_but_itself(tmp_path):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    text = built(
        runs(tmp_path, "a", question=f"<image>{evil}", text=evil), [row("a")], notes=[evil]
    )
    assert "<script" not in text
    assert "<img src=x" not in text
    assert text.count("&lt;script&gt;alert(1)") == 3
    assert "default-src 'none'" in unescape(text)
    assert 'src="http' not in text
    assert "not an explanation" in text


def test_the_page_fits_a_phone_in_light_and_dark(browser, tmp_path):
    """Also where text has no spaces to break at."""
    evil = "</p><script>document.title = 666</script>" + "x" * 3_000
    names = ("a", "b")
    rows = [row(name, index) for name in names for index in range(2)]
    file = tmp_path / "page.html"
    file.write_text(built(runs(tmp_path, *names, question=f"<image>{evil}", text=evil), rows))
    tab = browser.open(file, size=PHONE)
    assert tab.run("document.images.length") >= 4
    assert "666" not in tab.run("document.title")
    assert tab.faults() == []
    tab.dark()
    assert tab.faults() == []
