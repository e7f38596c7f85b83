"""What docs/methods.md says of each objective is so: its passes, its lines; and the trainer knows no method."""

import ast
import io
import re
import tokenize

import pytest
from lab_module import REPOSITORY, lab_module, reward_by_row
from methods.credit_cases import CONF, OBJECTIVES, config_of, objective_of

import papo.methods
from papo.training import check_sampled_from

MOST_LINES, MOST_LINES_OF_CONF = 40, 15
METHODS = {path.stem: path for path in (REPOSITORY / "papo" / "methods").glob("[!_]*.py")}


def page():
    return (REPOSITORY / "docs" / "methods.md").read_text("utf-8")


def folds():
    """objective -> what is folded below the table."""
    found = re.findall(r"(?s)<summary><code>(\w+)</code>[^\n]*</summary>(.*?)</details>", page())
    return dict(found)


def rows():
    """objective -> the cells of its row."""
    text = page()
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]
    return {each[0].strip(" `"): each for each in cells}


def code_lines(text):
    """Lines with code; docstrings, comments and blank lines are none."""
    said = set()
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            said |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    held = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent | {tokenize.ENDMARKER}:
            held |= set(range(token.start[0], token.end[0] + 1))
    return len(held - said)


def test_code_is_counted_without_what_explains_it():
    text = '"""A module,\nof two lines."""\n\nx = 1  # why\n# why\n\ndef f():\n    """Says."""\n    return """a\nb"""\n'
    assert code_lines(text) == 4


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_small_file(name):
    assert code_lines(METHODS[name].read_text("utf-8")) <= MOST_LINES


@pytest.mark.parametrize("name", sorted(folds().keys() & {*OBJECTIVES}))
def test_its_configuration_is_small_too(name):
    assert len((CONF / "objective" / f"{name}.yaml").read_text().splitlines()) <= MOST_LINES_OF_CONF


@pytest.mark.parametrize("name", sorted(METHODS.keys() & {*OBJECTIVES}))
def test_its_lines_are_as_said(name):
    said = re.search(r"\* Source: .*; (\d+) lines\n", folds()[name])[1]
    assert said == str(code_lines(METHODS[name].read_text("utf-8")))


def test_every_objective_has_a_row_of_the_table():
    assert rows().keys() >= {*OBJECTIVES}
    assert all(len(cells) == 4 for cells in rows().values())


def test_every_method_says_its_formula_and_its_source_below_the_table():
    says_what_it_adds = {name for name, cells in rows().items() if ": " in cells[1].split("`")[0]}
    assert folds().keys() == says_what_it_adds - {"entropy"} >= METHODS.keys() & {*OBJECTIVES}
    for name, fold in folds().items():
        assert "\n* Formula: " in fold, name
        assert "\n* Source: " in fold, name


def plainly(name):
    """As it is found in code and in prose: R1-ShareVL is r1_sharevl."""
    return name.lower().replace("-", "").replace("_", "")


def test_the_trainer_names_no_method():
    names = {plainly(name) for name in (*METHODS, *papo.methods.__all__, *folds())}
    assert "noisyrollout" in names
    for path in (REPOSITORY / "papo" / "training").rglob("*.py"):
        words = {plainly(word) for word in re.findall(r"[\w-]+", path.read_text("utf-8"))}
        assert not names & words, path


def said_passes(objective, fidelity):
    """(without gradient per rollout, with gradient per update beside the image's)."""
    cell = rows()[objective][2]
    usual, _, others = cell.partition(";")
    chosen = others if f"`{fidelity}`" in others else usual
    return tuple(int(number) for number in re.search(r"(\d+) \+ (\d+)", chosen).groups())


@pytest.mark.parametrize(
    ("objective", "fidelity"),
    [(name, "official") for name in OBJECTIVES]
    + [("papo_g", "exact"), ("papo_d", "paper"), ("papo_jsd", "paper")],
)
def test_its_passes_are_those_of_the_table(objective, fidelity, tmp_path):
    from papo.commands.training.plan import make_views

    made = objective_of(objective, fidelity)
    views = make_views(config_of(objective, fidelity), made)
    shares = config_of(objective, fidelity).objective.get("sampled_from") or {}
    module = lab_module(
        tmp_path,
        objective=made,
        views=views,
        sampled_from=check_sampled_from(shares, views, num_responses=4),
        reward=None if made.needs.flagged else reward_by_row(4),
        prompts_per_rollout=4,
    )
    collector, passes = module.collector, []
    reading = [
        module.policy_module.policy,
        *([collector.reference.policy] if collector.reference else []),
    ]
    for policy in reading:
        policy.model.model.language_model.register_forward_hook(lambda *_: passes.append(1))
    sample = collector.engine.sample

    def sampled(*arguments):
        responses = sample(*arguments)
        passes.clear()
        return responses

    collector.engine.sample = sampled
    batch = collector.collect(0, 0, progress=0.0).batch
    without_gradient = len(passes)
    passes.clear()
    module._score(batch)
    assert (without_gradient, len(passes) - 1) == said_passes(objective, fidelity)
