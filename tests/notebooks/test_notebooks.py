"""Every notebook runs from top to bottom on the lab, and is kept without what it printed."""

import itertools
import os
import re

import nbformat
import pytest
from training.command import REPOSITORY

FOLDER = REPOSITORY / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))

SMALL = {
    "error_analysis": {"NUM_ROLLOUTS": 1, "NUM_PROBLEMS": 6, "NUM_RESPONSES": 1},
    "papo_on_one_page": {"NUM_PROBLEMS": 4, "NUM_RESPONSES": 4},
    "what_the_mask_hides": {"NUM_PROBLEMS": 6, "NUM_RESPONSES": 2, "RATIOS": [0.0, 0.6, 1.0]},
    "reading_a_run": {"NUM_ROLLOUTS": 2},
}
"""What replaces the parameters of a notebook in the test."""


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters_cell(notebook):
    [cell] = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    return cell


def printed(cell):
    """What a cell printed, as one text."""
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.fixture(scope="module", params=sorted(SMALL))
def executed(request, tmp_path_factory):
    """A notebook after it ran, in a kernel of its own with an empty home, as from its folder."""
    # Here, so that no notebook says that it looks for fonts.
    import matplotlib.font_manager
    from nbclient import NotebookClient

    assert matplotlib.get_cachedir() == os.environ["MPLCONFIGDIR"]

    notebook = read(request.param)
    cell = parameters_cell(notebook)
    for name, value in SMALL[request.param].items():
        cell.source, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", cell.source)
        assert count == 1, f"{request.param} has no parameter {name}"
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=240, resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute(
        env={
            **os.environ,
            "HOME": str(tmp_path_factory.mktemp("home")),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore:IProgress not found",
        }
    )
    return request.param, notebook


def test_every_notebook_has_small_settings_to_run_with():
    assert sorted(SMALL) == NOTEBOOKS


@pytest.mark.slow
def test_a_notebook_runs_and_shows_something(executed):
    _, notebook = executed
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    complaints = [o.text for o in outputs if o.get("name") == "stderr"]
    assert not complaints


def test_what_a_notebook_states_it_has_computed(executed):
    """A line of each that only a run to its end prints."""
    name, notebook = executed
    expected = {
        "papo_on_one_page": r"perception_kl\s+-0\.10\s+(\S+)\s+\1",
        "what_the_mask_hides": r"token\s+\S+%\s+\S+%",
        "reading_a_run": r"update\s+\S+ s in all",
        "error_analysis": r"perception: \d+ slots before alone, \d+ after alone, McNemar p = \S+",
    }[name]
    text = "\n".join(printed(cell) for cell in code_cells(notebook))
    assert re.search(expected, text), text


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_outputs(name):
    for cell in code_cells(read(name)):
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_begins_with_a_title_and_explains_between_its_cells(name):
    notebook = read(name)
    assert notebook.cells[0].source.startswith("# ")
    kinds = [cell.cell_type for cell in notebook.cells]
    # Code after code only where the parameters and the imports stand.
    assert sum(a == b == "code" for a, b in itertools.pairwise(kinds)) == 1
    assert not re.search(r"/(work|tmp|home|root)/", nbformat.writes(notebook))
