"""Runs notebooks from top to bottom and keeps what they print: python notebooks/execute.py [NAME ...]

Nothing of the machine is kept: no times, no versions, no paths. tests/notebooks runs them the same way.
"""

import argparse
import base64
import io
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parent


def executed(name: str, home: Path, parameters: Mapping[str, Any] | None = None) -> Any:
    """Returns a notebook with its outputs, run in a kernel of its own from its folder.

    Args:
        name: of the file, without its ending.
        home: an empty folder for it.
        parameters: what replaces lines of the cell tagged `parameters`.
    """
    # Here, so that no notebook says that it looks for fonts.
    import matplotlib.font_manager  # noqa: F401

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    for key, value in (parameters or {}).items():
        cell.source, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value!r}", cell.source)
        if count != 1:
            raise ValueError(f"{name} has no parameter {key}")
    settings = {
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore:IProgress not found",
    }
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,
        record_timing=False,
        # On a busy machine what is printed comes in pieces.
        coalesce_streams=True,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute(env={**os.environ, **settings})
    notebook.metadata.pop("language_info", None)
    return notebook


def shrink_pictures(notebook: Any) -> None:
    """Gives the plots of a notebook 64 colours each, which is a third of the bytes."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for data in (output.get("data", {}) for output in outputs):
        if "image/png" in data:
            with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
                small, written = picture.convert("RGB").quantize(64), io.BytesIO()
            small.save(written, format="PNG", optimize=True)
            data["image/png"] = base64.b64encode(written.getvalue()).decode()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="without ending (default: all)")
    for name in parser.parse_args().names or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as home:
            notebook = executed(name, Path(home))
        shrink_pictures(notebook)
        nbformat.write(notebook, FOLDER / f"{name}.ipynb")
        print("Wrote", FOLDER / f"{name}.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main())
