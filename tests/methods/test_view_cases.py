"""What the authors' functions compute of views and of the methods that have them, where the cases are at hand."""

import importlib
import json
import sys

import pytest

CASES = ("views", "noisyrollout", "dvrp", "cppo")


@pytest.mark.parametrize("name", CASES)
def test_every_output_of_the_authors_is_reproduced(name, repository, monkeypatch):
    file = repository.parent / "shared" / "golden" / "methods" / f"{name}.json"
    if not file.is_file():
        pytest.skip("no cases of methods beside the repository")
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    report = importlib.import_module("check_method").report
    cases = json.loads(file.read_text("utf-8"))
    assert len(cases["cases"]) >= 10
    assert report(cases) == 0
    sys.modules.pop("check_method")
