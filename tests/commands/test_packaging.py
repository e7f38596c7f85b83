"""The files that other tools read say what this repository does."""

import json
import re
import tomllib
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]


def test_commits_are_held_to_what_make_check_does():
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    parts = re.search(r"^check: (.*?) ##", makefile, re.MULTILINE)[1].split()
    recipes = [re.search(rf"(?ms)^{part}:.*?\n\n", makefile)[0] for part in parts]
    commands = re.findall(r"^\t\$\(BIN\)/(.*)$", "".join(recipes), re.MULTILINE)
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert [one["repo"] for one in hooks] == ["local"]
    assert [hook["entry"] for hook in hooks[0]["hooks"]] == commands
    assert all(hook["language"] == "system" for hook in hooks[0]["hooks"])


def test_the_citation_is_of_this_version_and_of_the_paper():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert "2507.06448" in citation["preferred-citation"]["url"]


def test_the_image_copies_what_is_there_and_has_the_locked_versions():
    text = (REPOSITORY / "Dockerfile").read_text("utf-8")
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
    files = {name for names in copied for name in names}
    assert all((REPOSITORY / name).exists() for name in files)
    assert {"papo", "conf", "setup.py", "pyproject.toml", "constraints"} <= files
    for line in text.splitlines():
        if "pip install" in line and not line.startswith("#"):
            assert "constraints/locked.txt" in line
            assert "constraints/torch.txt" in line
    [extras] = re.findall(r"'\.\[([\w,]+)\]'", text)
    assert {*extras.split(",")} <= set(PROJECT["optional-dependencies"])


def test_the_development_container_uses_the_makefile():
    container = json.loads((REPOSITORY / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    assert container["postCreateCommand"] == "make setup"
    assert "\nsetup:" in (REPOSITORY / "Makefile").read_text("utf-8")


def test_the_forms_of_issues_can_be_read():
    forms = (REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml")
    for file in forms:
        form = yaml.safe_load(file.read_text("utf-8"))
        if file.name == "config.yml":
            continue
        assert form["name"]
        assert form["description"]
        assert all(one["attributes"]["label"] for one in form["body"])
