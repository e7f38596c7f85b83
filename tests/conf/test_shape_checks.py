"""Tests run with checks of what papo annotates: shapes, types, and the fields of its dataclasses."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_shape_that_is_not_the_annotated_one_is_refused():
    from papo.functional import sequence_mean

    counts = {"num_rollouts": 2, "count_epsilon": 0.0}
    sequence_mean(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool), **counts)
    for values, mask in [
        (torch.ones(2, 3), torch.ones(2, 4, dtype=torch.bool)),
        (torch.ones(2, 3), torch.ones(2, 3)),
        (torch.ones(3), torch.ones(3, dtype=torch.bool)),
    ]:
        with pytest.raises(TypeError):
            sequence_mean(values, mask, **counts)


def test_a_value_that_is_not_of_the_annotated_type_is_refused():
    from papo.types import shown

    assert shown("a", 1)
    with pytest.raises(TypeError):
        shown("a", "1")


def test_a_dataclass_refuses_a_field_of_another_type():
    from papo.types import Problem

    fields = {"id": "1", "question": "?", "answer": "1", "images": (), "source": "test"}
    Problem(**fields)
    with pytest.raises(TypeError):
        Problem(**{**fields, "id": 1})


def test_no_inner_function_names_a_shape_for_they_are_not_checked():
    found = []

    def look(node, file, *, is_inner):
        for child in ast.iter_child_nodes(node):
            is_function = isinstance(child, ast.FunctionDef)
            if is_function and is_inner:
                hints = [one.annotation for one in ast.walk(child.args) if isinstance(one, ast.arg)]
                texts = [ast.unparse(one) for one in (*hints, child.returns) if one]
                if any("Tensor, '" in text for text in texts):
                    found.append(f"{file.name}: {child.name}")
            look(child, file, is_inner=is_inner or is_function)

    for file in (REPOSITORY / "papo").rglob("*.py"):
        look(ast.parse(file.read_text("utf-8")), file, is_inner=False)
    assert found == []


def test_nothing_of_the_package_is_imported_before_its_checks():
    code = "import papo, shape_checks; shape_checks.install()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert "imported before its checks" in done.stderr


def test_checks_that_a_test_does_without_are_back_after_it():
    from shape_checks import unchecked

    from papo.safeguard import CollapseDetector, Signal
    from papo.safeguard import detector as module

    signal = Signal(columns=["a"], floor=1.0, memory=1)
    watch = CollapseDetector(
        signals={"a": signal}, limit=1.0, allowance=0.0, excess_cap=1.0, baseline_rollouts=1
    )
    functions = (CollapseDetector.update, Signal.read, module.first_number)
    with pytest.MonkeyPatch.context() as patch:
        unchecked(patch, module, CollapseDetector, Signal)
        assert (CollapseDetector.update, Signal.read, module.first_number) == tuple(
            one.__wrapped__ for one in functions
        )
        assert watch.update({"a": "1"}) is None
        assert watch.statistic == 0.0
    assert (CollapseDetector.update, Signal.read, module.first_number) == functions
    with pytest.raises(TypeError):
        watch.update({"a": "1"})
