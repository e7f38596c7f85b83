"""Every notebook runs from top to bottom on the lab, and is kept with what it printed."""

import itertools
import math
import os
import re
import runpy
import sys

import nbformat
import pytest
from training.command import REPOSITORY

FOLDER = REPOSITORY / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))

SMALL = {
    "error_analysis": {"NUM_ROLLOUTS": 1, "NUM_PROBLEMS": 6, "NUM_RESPONSES": 1},
    "papo_on_one_page": {},
    "what_the_mask_hides": {},
    "reading_a_run": {"NUM_ROLLOUTS": 2},
}
"""What replaces the parameters of a notebook in the test; nothing where it runs as it is kept."""

AS_KEPT = [name for name, parameters in SMALL.items() if not parameters]


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    """What a cell printed, as one text."""
    return "".join(output.get("text", "") for output in cell.outputs)


def words(text):
    return re.sub(r"-?\d+\.\d+", "#", text).split()


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def kinds(cell):
    """What a cell shows: texts, pictures, pages."""
    return [" ".join(sorted(output.get("data", ["text"]))) for output in cell.outputs]


@pytest.fixture(scope="module", params=sorted(SMALL))
def executed(request, tmp_path_factory, forked_python):
    """A notebook after it ran, in a kernel of its own, as from its folder.

    Its kernel, and the commands that it starts, find the libraries imported. So does Matplotlib, which a kernel tells
    by a variable, before it is imported, to draw into the notebook: its home is empty but for that.
    """
    import matplotlib

    assert matplotlib.get_cachedir() == os.environ["MPLCONFIGDIR"]
    home = tmp_path_factory.mktemp("home")
    startup = home / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "drawn.ipy").write_text("%matplotlib inline\n")
    run = runpy.run_path(str(FOLDER / "execute.py"))["executed"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", forked_python)
        return request.param, run(request.param, home, SMALL[request.param])


def test_every_notebook_has_small_settings_to_run_with():
    assert sorted(SMALL) == NOTEBOOKS


@pytest.mark.slow
def test_a_notebook_runs_and_shows_what_it_shows_where_it_is_kept(executed):
    name, notebook = executed
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    for cell, kept in zip(code_cells(notebook), code_cells(read(name)), strict=True):
        assert kinds(cell) == kinds(kept), cell.source


def test_what_a_notebook_prints_is_what_is_kept(executed):
    """Words are the same; numbers too, but for the last bits of another machine."""
    name, notebook = executed
    if name not in AS_KEPT:
        pytest.skip("runs with smaller settings here")
    compared = 0
    for cell, kept in zip(code_cells(notebook), code_cells(read(name)), strict=True):
        got, expected = printed(cell), printed(kept)
        assert words(got) == words(expected)
        for a, b in zip(numbers(got), numbers(expected), strict=True):
            assert math.isclose(a, b, rel_tol=0.02, abs_tol=2e-4), (got, expected)
            compared += 1
    assert compared > 5


def test_what_a_notebook_states_it_has_computed(executed):
    """A line of each that only a run to its end prints."""
    name, notebook = executed
    for one in (notebook, read(name)):
        text = "\n".join(printed(cell) for cell in code_cells(one))
        assert re.search(
            {
                "papo_on_one_page": r"perception_kl\s+-0\.10\s+(\S+)\s+\1",
                "what_the_mask_hides": r"token\s+\S+%\s+\S+%",
                "reading_a_run": r"update\s+\S+ s in all",
                "error_analysis": r"perception: \d+ slots before alone, \d+ after alone, McNemar p = \S+",
            }[name],
            text,
        ), text


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_with_its_outputs_and_is_small(name):
    cells = code_cells(read(name))
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    shown = {kind for cell in cells for kind in kinds(cell)}
    assert {"text", "image/png text/plain"} <= shown
    assert cells[-1].outputs
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 200_000


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_keeps_nothing_of_a_machine(name):
    notebook = read(name)
    assert not re.search(r"/(work|tmp|home|root)/", nbformat.writes(notebook))
    assert {*notebook.metadata} == {"kernelspec"}
    assert not [cell for cell in code_cells(notebook) if "execution" in cell.metadata]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_begins_with_a_title_and_explains_between_its_cells(name):
    notebook = read(name)
    assert notebook.cells[0].source.startswith("# ")
    types = [cell.cell_type for cell in notebook.cells]
    # Code after code only where the parameters and the imports stand.
    assert sum(a == b == "code" for a, b in itertools.pairwise(types)) == 1
