"""Which commands there are, what a line that names none is told, and what --help says."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conf.composing import composed

from papo.commands.command_line import COMMANDS, bare_paths, main, variables, words_of
from papo.commands.constructors import CONF
from papo.commands.help import HELPS, groups_of, help_of
from papo.commands.resolvers import lab_warm_start
from papo.lab import WARM_START

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_command_that_takes_overrides_alone_has_a_help():
    assert {name for name, command in COMMANDS.items() if command.path} == set(HELPS)


def test_every_command_has_a_module_and_stands_in_the_list(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert importlib.util.find_spec(f"papo.commands.{name.replace(' ', '_')}"), name
        [line] = [one for one in printed.splitlines() if f"papo {name} " in f"{one} "]
        assert command.does in line


@pytest.mark.parametrize(
    ("words", "offers"),
    [(["trian"], set(COMMANDS)), (["check"], {name for name in COMMANDS if "check" in name})],
)
def test_a_line_that_names_no_command_is_told_those_there_are(words, offers, capsys):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: no command {words[0]}\n")
    assert {name for name in COMMANDS if f"papo {name} " in err} == offers


def test_two_words_name_a_command_and_the_rest_is_its_own(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["papo"])
    assert main(["check", "grader", "nowhere.jsonl"]) == 2
    assert sys.argv == ["papo check grader", "nowhere.jsonl"]
    assert "nowhere.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["outputs/run"], ["outputs/run"]),
        (["a/b", "c/d"], ["a/b", "c/d"]),
        (["README.md"], ["README.md"]),
        (["runs=[a/b]", "~logger", "+x", "seed"], []),
        (["--config-dir", "a/b", "seed=1"], []),
        (["-m", "seed=1,2"], []),
    ],
)
def test_a_path_is_seen_where_an_override_is_meant(words, found, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert bare_paths(words) == found


def test_what_a_command_starts_finds_the_package_from_any_folder(tmp_path):
    code = "import json, papo, sys; print(json.dumps(papo.__file__))"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**clean, **variables()},
        capture_output=True,
        check=True,
    )
    assert Path(json.loads(found.stdout)) == REPOSITORY / "papo" / "__init__.py"
    assert words_of("check grader") == ["-m", "papo", "check", "grader"]


def test_the_starting_policy_is_named_without_importing_the_lab():
    assert Path(lab_warm_start()) == WARM_START


@pytest.mark.parametrize("name", HELPS)
def test_the_overrides_of_the_help_exist(name):
    overrides = HELPS[name].overrides
    assert len(overrides) == 10
    for line in overrides:
        composed(name, line.split())


@pytest.mark.parametrize("name", HELPS)
def test_the_pages_of_the_help_exist(name):
    assert all((REPOSITORY / page).is_file() for page in HELPS[name].pages)


def test_every_group_is_in_the_help_of_the_commands_that_read_it():
    listed = {name: {group.lstrip("+") for group, _ in groups_of(name)} for name in HELPS}
    for name, groups in listed.items():
        for group in groups:
            assert (CONF / group).is_dir(), (name, group)
    inner = ("common", "base", "parts", "aliases")
    folders = {
        path.relative_to(CONF).as_posix()
        for path in CONF.rglob("*")
        if path.is_dir() and path.name not in (*inner, "__pycache__")
    }
    # lmms-eval reads its own; hydra/ holds no choices itself.
    assert folders - {"lmms_eval", "hydra"} == set().union(*listed.values())
    assert not {"views", "probe", "probe/references", "judge"} & listed["train"]
    assert not {"objective", "optimizer", "training", "trainer"} & listed["evaluate"]
    assert listed["analyze"] == {"judge"}


def test_the_help_names_the_default_of_a_group_first():
    assert dict(groups_of("train"))["objective"][0] == "papo_jsd"
    assert "papo_jsd, " in help_of("train")
