"""README, docs/ and the pages beside them: links and anchors lead somewhere, both on GitHub and in the site.

The site itself is built by `make docs`, strictly; nothing here needs mkdocs.
"""

import importlib.util
import itertools
import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]


def load_hooks():
    spec = importlib.util.spec_from_file_location(
        "site_hooks", REPOSITORY / "docs" / "site_hooks.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOKS = load_hooks()
DOCS = [path.relative_to(REPOSITORY) for path in sorted((REPOSITORY / "docs").rglob("*.md"))]
PAGES = [*map(Path, HOOKS.ADOPTED), *DOCS]
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=str)


def text_of(page):
    return (REPOSITORY / page).read_text("utf-8")


def without_code(text):
    """A page without its blocks and pieces of code, in which brackets are no links."""
    lines = [line for line in text.splitlines() if not re.match(r" {4,}\S", line)]
    return re.sub(r"`[^`\n]*`", "`code`", "\n".join(lines))


def targets(text):
    return re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', without_code(text))


def anchors(text):
    found = re.findall(r"(?m)^#+ (.+)$", text)
    return {HOOKS.github_anchor(re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", one)) for one in found}


def in_navigation(entries):
    for entry in entries:
        inner = next(iter(entry.values())) if isinstance(entry, dict) else entry
        if isinstance(inner, list):
            yield from in_navigation(inner)
        else:
            yield inner


@EACH_PAGE
def test_a_link_leads_to_a_file_and_its_heading(page):
    for target in map("".join, targets(text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert file.exists(), target
        assert file.resolve().is_relative_to(REPOSITORY), target
        if anchor:
            assert anchor in anchors(file.read_text("utf-8")), target


@pytest.mark.parametrize("page", DOCS, ids=str)
def test_the_first_line_of_a_page_says_whom_it_is_for(page):
    title, empty, readers = text_of(page).splitlines()[:3]
    assert title.startswith("# ")
    assert (empty, readers[:8]) == ("", "**For** ")


def test_the_pictures_of_the_front_page_are_small():
    pictures = re.findall(r"!\[[^]]{20,}\]\(([^)]+)\)", text_of("README.md"))
    assert {Path(picture).stem for picture in pictures} == {"mask", "run_page", "step"}
    assert all((REPOSITORY / picture).stat().st_size < 150_000 for picture in pictures)


def test_anchors_are_those_of_github():
    assert HOOKS.github_anchor("Where it is: `a_b`, c-d & e") == "where-it-is-a_b-c-d--e"


def test_every_page_is_in_the_navigation_once():
    settings = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())
    listed = list(in_navigation(settings["nav"]))
    there = [str(page.relative_to("docs")) for page in DOCS]
    assert sorted(listed) == sorted([*there, *HOOKS.ADOPTED.values()])


@EACH_PAGE
def test_lists_and_tables_begin_after_an_empty_line(page):
    """GitHub does not ask for it; the site would run them into the paragraph before."""
    lines = ["", *text_of(page).splitlines()]
    for before, line in itertools.pairwise(lines):
        for start in (r"\* ", r"\d+\. ", r"\|"):
            if re.match(start, line) and not re.match(rf"{start}|\s", before):
                assert before == "", line


@EACH_PAGE
def test_lists_have_no_blocks_of_their_own(page):
    """What belongs to an item stands two columns in on GitHub and four in the site, so nothing does."""
    lines = ["", *text_of(page).splitlines()]
    for before, line in itertools.pairwise(lines):
        assert before or not re.match(r" {1,3}\S| {5,7}\S", line), line


def test_a_link_of_the_site_leads_to_the_page_the_picture_or_the_repository(monkeypatch):
    monkeypatch.setenv("PAPO_SOURCE_URL", "https://example.org/papo")
    for source, target, expected in (
        ("README.md", "docs/data.md#columns", "data.md#columns"),
        ("README.md", "docs/figures/step.svg", "figures/step.svg"),
        ("docs/results/lab_ahead.md", "../rollouts.md#a", "../rollouts.md#a"),
        ("docs/results/lab_ahead.md", "lab_collapse.md", "lab_collapse.md"),
        ("docs/commands.md", "../README.md#train", "index.md#train"),
        ("docs/data.md", "../papo/data/chat.py", "https://example.org/papo/papo/data/chat.py"),
        ("examples/README.md", "../docs/trust.md", "trust.md"),
        ("docs/data.md", "#columns", "#columns"),
        ("docs/data.md", "https://arxiv.org/abs/1", "https://arxiv.org/abs/1"),
    ):
        assert HOOKS.rewritten(f"see [it]({target}).", source) == f"see [it]({expected})."
    picture = HOOKS.rewritten('<img src="docs/figures/step.svg">', "README.md")
    assert picture == '<img src="figures/step.svg">'


def test_the_pages_of_the_code_have_every_public_module_once():
    listed = [module for modules in HOOKS.packages().values() for module in modules]
    there = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in (REPOSITORY / "papo").rglob("*.py")
        if not path.stem.startswith("_") and (path.parent / "__init__.py").exists()
    }
    assert len(listed) > 200
    assert sorted(listed) == sorted(there)


def test_the_glossary_explains_a_word_once_and_says_where_it_is():
    text = text_of("docs/glossary.md")
    rows = [
        row for row in re.findall(r"(?m)^\| (.+?) \| (.+) \| (.*) \|$", text) if row[0] != "word"
    ]
    words = [word for row in rows for word in row[0].split(", ")]
    assert len(set(words)) == len(words) > 70
    for word, sentence, where in rows:
        assert sentence.endswith((".", ").")), word
        for place in re.findall(r"`([^`]+)`", where):
            assert (REPOSITORY / place).exists(), place
