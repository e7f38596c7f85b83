"""`python -m papo new experiment NAME`: a folder to start from, with a reward, a term, configurations and a test."""

import argparse
import re
from pathlib import Path

from papo.commands.constructors import allow_packages

FILES = Path(__file__).parent / "starter" / "files"


def new_experiment(name: str, parent: Path) -> list[Path]:
    """Writes the folder `parent`/`name`; returns its files.

    Args:
        name: of the folder, of the package in it and of the experiment.
        parent: must be there.

    Raises:
        ValueError: it is no name that a package of one's own can have, or something stands there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(
            f"a name is of small letters, digits and _, and begins with a letter; got {name!r}"
        )
    # It will be allowed on the command line: refused here rather than there.
    allow_packages([name])
    folder = parent / name
    # The folder itself, so that of two who make it at once one is refused.
    try:
        folder.mkdir()
    except FileExistsError:
        raise ValueError(
            f"{folder} is there already, and nothing of it is overwritten; choose another name"
        ) from None
    written = []
    for source in sorted(FILES.rglob("*.txt")):
        inner = source.relative_to(FILES).with_suffix("").as_posix().replace("NAME", name)
        file = folder / inner
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source.read_text("utf-8").replace("NAME", name), "utf-8")
        written.append(file)
    return written


def main() -> None:
    """Runs the command on the arguments of this process."""
    parser = argparse.ArgumentParser(prog="papo new experiment", description=__doc__)
    parser.add_argument("name", help="of the folder, the package and the experiment")
    parser.add_argument(
        "--parent", type=Path, default=Path(), help="where the folder goes (default: here)"
    )
    arguments = parser.parse_args()
    for file in new_experiment(arguments.name, arguments.parent):
        print(file)
    print(f"go on with {arguments.parent / arguments.name / 'README.md'}")
