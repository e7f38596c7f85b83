"""Pages of results begin with whom they are for, a figure and a plain sentence; a figure says what its page says."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "docs" / "results"
PAGES = sorted(path.name for path in FOLDER.glob("*.md"))
FIGURES = yaml.safe_load((FOLDER / "figures.yaml").read_text())


@pytest.fixture(scope="module")
def drawing():
    return runpy.run_path(str(REPOSITORY / "scripts" / "draw_results.py"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_begins_with_its_readers_a_figure_and_a_sentence(page):
    text = (FOLDER / page).read_text("utf-8")
    title, readers, figure, sentence = re.split(r"\n\n+", text)[:4]
    assert title.startswith("# ")
    assert readers.startswith("**For** ")
    assert re.search(r"!\[[^]]{20,}\]\(\w+\.svg\)", figure)
    assert re.match(r"\*\*[A-Z][^*]+[.;]\*\*", sentence)


@pytest.mark.parametrize("page", PAGES)
def test_tables_of_more_than_ten_lines_are_folded(page):
    text = (FOLDER / page).read_text("utf-8")
    unfolded = re.sub(
        r"<details markdown=\"1\">\n<summary>.+?</summary>\n\n.*?\n\n</details>",
        "",
        text,
        flags=re.S,
    )
    assert "details>" not in unfolded
    for table in re.findall(r"(?:^\|.*\n)+", unfolded, re.MULTILINE):
        assert table.count("\n") <= 12, table


def commands_on_kept_runs(page):
    """Those that make a table of a page from files that lie beside it: the arguments of report_regimes.py."""
    text = (FOLDER / page).read_text("utf-8")
    return re.findall(
        r"^    python scripts/report_regimes\.py (.*docs/results/runs/.*)$", text, re.M
    )


def test_the_tables_of_kept_runs_are_what_their_commands_make(tmp_path, monkeypatch):
    main = runpy.run_path(str(REPOSITORY / "scripts" / "report_regimes.py"))["main"]
    monkeypatch.chdir(REPOSITORY)
    read = set()
    for page in PAGES:
        copy, text = tmp_path / page, (FOLDER / page).read_text("utf-8")
        copy.write_text(text, "utf-8")
        for command in commands_on_kept_runs(page):
            arguments = shlex.split(command)
            read |= {Path(word).name for word in arguments if word.endswith(".jsonl")}
            arguments[arguments.index("--page") + 1] = str(copy)
            monkeypatch.setattr(sys, "argv", ["report_regimes.py", *arguments])
            assert main() == 0
        assert copy.read_text("utf-8") == text, page
    assert read == {path.name for path in (FOLDER / "runs").iterdir()}
    assert read


def unsigned_zeros(text):
    return re.sub(r"[+-]0\.0\b", "0.0", text)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_what_the_tables_of_its_page_say(name, drawing):
    text = (FOLDER / f"{FIGURES[name]['page']}.md").read_text("utf-8")
    assert f"]({name}.svg)" in text
    drawn = (FOLDER / f"{name}.svg").read_text("utf-8")
    for settings in FIGURES[name]["panels"]:
        form = "g" if "along" in settings else "+.1f"
        for arm, effect in drawing["panel_of"](text, **settings).effects.items():
            low, high = effect.narrow
            words = f"{arm} {effect.value:{form}} [{low:{form}}, {high:{form}}]"
            assert unsigned_zeros(words) in unsigned_zeros(drawn), arm


def test_another_number_on_the_page_is_another_figure(tmp_path, drawing, monkeypatch):
    (tmp_path / "figures.yaml").write_text(yaml.safe_dump({"lab_ahead": FIGURES["lab_ahead"]}))
    text = (FOLDER / "lab_ahead.md").read_text("utf-8")
    monkeypatch.setattr(sys, "argv", ["draw_results.py", "--folder", str(tmp_path)])
    (tmp_path / "lab_ahead.md").write_text(text.replace("-1.3 [-2.1, -0.5]*", "-9.3 [-9.9, -8.5]"))
    assert drawing["main"]() == 0
    assert "ahead -9.3 [-9.9, -8.5]" in (tmp_path / "lab_ahead.svg").read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("## One update", "## No update", "no section 'One update a rollout"),
        ("mean over all rollouts |", "another |", "has no column 'mean over all rollouts'"),
        ("`newest`, itself", "`newest`", "'ARM, itself'"),
        ("-1.3 [-2.1, -0.5]*", "-1.3", "one interval, or two; got '-1.3'"),
    ],
)
def test_a_page_that_has_it_not_is_refused(
    old, new, message, tmp_path, drawing, monkeypatch, capsys
):
    (tmp_path / "figures.yaml").write_text(yaml.safe_dump({"lab_ahead": FIGURES["lab_ahead"]}))
    text = (FOLDER / "lab_ahead.md").read_text("utf-8")
    (tmp_path / "lab_ahead.md").write_text(text.replace(old, new))
    monkeypatch.setattr(sys, "argv", ["draw_results.py", "--folder", str(tmp_path)])
    assert drawing["main"]() == 1
    assert message in capsys.readouterr().err
