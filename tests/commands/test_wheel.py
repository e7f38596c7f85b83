"""`pip install` of a wheel gives everything: the commands, conf/, and a run in whatever folder one works in."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from installed_wheel import REPOSITORY, SHORT, installed, run, wheel

__all__ = ["installed", "wheel"]


def test_a_wheel_holds_the_configuration_and_the_console_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [points] = [name for name in names if name.endswith("entry_points.txt")]
        assert "papo = papo.commands.command_line:main" in archive.read(points).decode()
    inside = {name.removeprefix("papo/conf/") for name in names if name.startswith("papo/conf/")}
    files = {
        path.relative_to(REPOSITORY / "conf").as_posix()
        for path in (REPOSITORY / "conf").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == files
    assert not any(name.startswith(("tests/", "scripts/", "conf/")) for name in names)


def test_an_installed_wheel_trains_and_reports_where_one_works(installed, tmp_path):
    trained = run(installed, tmp_path, "train", *SHORT)
    assert trained.returncode == 0, trained.stderr
    assert str(REPOSITORY) not in trained.stdout + trained.stderr
    [folder] = (tmp_path / "outputs" / "lab").iterdir()
    assert json.loads((folder / "result.json").read_text())["status"] == "finished"
    reported = run(installed, tmp_path, "report", str(folder))
    assert reported.returncode == 0, reported.stderr
    assert (folder / "report.html").is_file()


def test_an_installed_wheel_says_which_file_it_reads(installed, tmp_path):
    """Its own conf/, wherever it stands."""
    code = "from papo.commands.constructors import CONF; print(CONF)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()) == installed / "papo" / "conf"
