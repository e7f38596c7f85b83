"""Every command of the README and of docs/ is one that its front door or script understands.

Settings are composed as Hydra would, arguments of scripts parsed by the script's own parser; nothing
runs. Of a multirun the first and the last job are composed, of a shipped sweep as it is the first
alone: test_sweeps.py composes all.
"""

import argparse
import importlib
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.initialize import initialize_config_dir
from hydra.types import RunMode
from omegaconf import OmegaConf

from papo.commands import arms, front_door
from papo.storage.published import published_results

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page.relative_to(REPOSITORY)
    for page in (
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        REPOSITORY / "benchmarks" / "README.md",
        *(REPOSITORY / "docs").rglob("*.md"),
    )
)
DOORS = ("train.py", "evaluate.py", "analyze.py")
FOREIGN = {"lmms_eval", "run.py", "pytest"}
"""Commands of other projects, whose settings are theirs."""


@dataclass(frozen=True)
class Command:
    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def commands_of(page: Path) -> Iterator[Command]:
    """The commands in code blocks and in inline code, shell variables and placeholders filled in."""
    text = (REPOSITORY / page).read_text("utf-8").replace("\\\n", " ")
    indented = [line.strip() for line in text.splitlines() if re.match(r"    +\S", line)]
    inline = re.findall(r"`([^`\n]+)`", text)
    variables: dict[str, str] = {}
    for line in [*indented, *inline]:
        if assigned := re.fullmatch(r"([A-Z]\w*)=(\S+)(?: +#.*)?", line):
            variables[assigned[1]] = assigned[2]
        elif loop := re.match(r"for (\w+) in (\S+)", line):
            variables[loop[1]] = loop[2]
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        line = re.sub(r"^(?:[A-Z_]+=\S+ +)+(?=python|make)", "", line)
        # What starts several processes of a door, or a job of it.
        line = re.sub(r"^torchrun (?:--\S+ +)*(?=\w+\.py )", "python ", line)
        line = re.sub(r"^sbatch (?:--\S+ +)*train\.sbatch ", "python train.py ", line)
        if re.match(r"(python|make) ", line):
            words = shlex.split(line, comments=True)
            # [--flag VALUE] is optional, "..." stands for other settings, "; see x" is prose.
            words = [word.strip("[]") if "--" in " ".join(words) else word for word in words]
            yield Command(str(page), tuple(word for word in words if word not in ("...", "")))


# A command that stands on several pages is checked once, under the last of them.
COMMANDS = list(
    {command.words: command for page in PAGES for command in commands_of(page)}.values()
)
HYDRA, SCRIPTS, MODULES, TARGETS = (
    sorted({command for command in COMMANDS if kind(command.words)}, key=str)
    for kind in (
        lambda words: words[1] in DOORS,
        lambda words: words[1].startswith(("scripts/", "notebooks/")),
        lambda words: words[1] == "-m",
        lambda words: words[0] == "make",
    )
)


def test_every_command_is_of_a_kind_that_is_checked():
    kinds = {*HYDRA, *SCRIPTS, *MODULES, *TARGETS}
    others = [command for command in COMMANDS if command not in kinds]
    assert [command for command in others if command.words[1] not in FOREIGN] == []
    assert len(HYDRA) > 80
    assert len(SCRIPTS) > 20
    assert any("docs/paper.md" in command.page for command in TARGETS)


def test_the_commands_that_start_several_processes_are_among_them():
    words = [command.words for command in HYDRA if command.page == "docs/scale.md"]
    assert any("trainer.num_nodes=2" in one and "-m" not in one for one in words)
    assert any("trainer.accelerator=cpu" in one for one in words)
    assert any("hydra/launcher=cluster" in one for one in words)


@pytest.fixture(scope="module")
def hydra():
    # One for all: it reads every file of conf/ once.
    with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
        yield GlobalHydra.instance().hydra


def jobs_of(hydra, door, overrides, *, multirun):
    """The configuration of the run, or those of the first and the last job."""
    mode = RunMode.MULTIRUN if multirun else RunMode.RUN
    config = hydra.compose_config(
        door.removesuffix(".py"), overrides, run_mode=mode, with_log_configuration=False
    )
    if not multirun:
        return [config]
    loader = hydra.config_loader
    params = OmegaConf.to_container(config.hydra.sweeper, resolve=True).get("params") or {}
    arguments = [*(f"{key}={value}" for key, value in params.items()), *overrides]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
    swept = BasicSweeper.split_arguments(parsed, None)[0]
    arms = {word.partition("=")[2] for job in swept for word in job if "sweep.arm=" in word}
    known = set(config.sweep.arms) if "sweep" in config else set()
    assert not known or arms <= known, arms - known
    as_shipped = all(re.match(r"\+(sweep|experiment)=", word) for word in overrides)
    return [loader.load_sweep_config(config, swept[i]) for i in ((0,) if as_shipped else (0, -1))]


@pytest.mark.parametrize("command", HYDRA, ids=str)
def test_a_front_door_composes_what_the_pages_say(command, hydra, monkeypatch):
    door, *rest = command.words[1:]
    flags = {word for word in rest if word.startswith("-")}
    assert flags <= {"-m", "--cfg"}
    overrides = [word for word in rest if "=" in word]
    others = set(rest) - set(overrides) - flags
    assert others <= {"job"}, others
    module = {"train": "training.plan", "evaluate": "evaluation.plan", "analyze": "analysis"}[
        door.removesuffix(".py")
    ]
    known = importlib.import_module(f"papo.commands.{module}").KNOWN_KEYS
    for job in jobs_of(hydra, door, overrides, multirun="-m" in flags):
        # Arms may be named after the job's choices.
        monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
        HydraConfig.instance().set_config(job)
        plain = OmegaConf.masked_copy(job, [key for key in job if key != "hydra"])
        arms.apply_arm(plain)
        assert set(plain) <= set(known), set(plain) - set(known)


class Parsed(Exception):
    """The script's parser took its arguments."""


@pytest.mark.parametrize("command", SCRIPTS, ids=str)
def test_a_script_takes_the_arguments_the_pages_give_it(command, monkeypatch):
    real = argparse.ArgumentParser.parse_args

    def parse(self, args=None, namespace=None):
        raise Parsed(real(self, list(command.words[2:])))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(sys, "argv", [command.words[1], *command.words[2:]])
    with pytest.raises(Parsed):
        runpy.run_path(str(REPOSITORY / command.words[1]), run_name="__main__")


@pytest.mark.parametrize("command", MODULES, ids=str)
def test_a_module_that_the_pages_run_is_there(command):
    name = command.words[2]
    assert name in FOREIGN or importlib.util.find_spec(name) is not None


@pytest.mark.parametrize("command", TARGETS, ids=str)
def test_a_make_target_that_the_pages_name_is_there(command):
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert command.words[1] in targets


def rows_of_the_paper():
    text = (REPOSITORY / "docs" / "paper.md").read_text()
    found = re.findall(r"^\| ((?:Figure|Table) \d+)(?:, \w+)? \|(.*)$", text, re.MULTILINE)
    return [(name, [cell.strip() for cell in rest.split("|")]) for name, rest in found]


def test_every_figure_and_table_has_a_row_that_says_how_or_why_not():
    rows = rows_of_the_paper()
    assert {name for name, _ in rows} == {
        f"{kind} {number}" for kind in ("Figure", "Table") for number in range(1, 16)
    }
    for name, (shows, commands, _, missing, *_) in rows:
        assert shows, name
        assert commands or missing, name


def test_links_of_the_page_lead_somewhere():
    page = REPOSITORY / "docs" / "paper.md"
    text = page.read_text()
    anchors = {
        heading.lower().replace(" ", "-")
        for heading in re.findall(r"^## (.+)$", text, re.MULTILINE)
    }
    linked = set()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        assert not file or (page.parent / file).is_file(), target
        if not file:
            linked.add(anchor)
            assert anchor in anchors, target
    # "From a run to a number" belongs to all.
    assert anchors - linked == {"from-a-run-to-a-number"}
    for named in re.findall(r"`((?:papo|tests|notebooks)/[\w/.]+)`", text):
        assert (REPOSITORY / named).is_file(), named


def test_numbers_of_the_page_are_the_published_ones():
    text = (REPOSITORY / "docs" / "paper.md").read_text()
    results = published_results()
    analysis, gains = results["error_analysis"], results["relative_gains"]
    assert f"{100 * analysis['perception_share']:.0f} %" in text
    assert f"-{100 * analysis['perception_reduction_with_papo']:.1f} %" in text
    printed = re.search(r"printed ([\d.]+) and ([\d.]+), its", text)
    assert [float(value) for value in printed.groups()] == [
        gains[name]["vision"] for name in ("papo_d_3b", "papo_d_7b")
    ]
    qwen3 = re.search(r"Qwen3-VL \(printed ([\d.]+), ([\d.]+), ([\d.]+), its", text)
    row = gains["papo_g_qwen3_vl_2b"]
    assert [float(value) for value in qwen3.groups()] == [
        row[group] for group in ("general", "vision", "overall")
    ]
    seconds = results["cost_per_step_seconds"].values()
    hours = re.search(r"took (\d+) to (\d+) hours", text)
    # 202 steps.
    assert [int(value) for value in hours.groups()] == [
        int(202 * second / 3600) for second in (min(seconds), max(seconds))
    ]
