"""Terms and credits of a user's own package: named on the command line, trained with, and refused otherwise."""

import csv
import sys

import pytest
import yaml
from methods.test_sizes_and_passes import code_lines
from training.command import REPOSITORY, run_command

from papo.commands.constructors import allow_packages, find_constructor, read_run_config

EXAMPLES = REPOSITORY / "examples" / "own_parts"
# What a stranger's package may also hold: a name that it imported, and a function.
OWN_PARTS = "".join(
    (
        (EXAMPLES / "term.py").read_text("utf-8"),
        (EXAMPLES / "credit.py").read_text("utf-8"),
        "import papo.objective\n\n\ndef makes_one(weight):\n    return StaysNear(weight=weight)\n",
    )
)

TERM = "+objective.terms.near={_target_:my_parts.StaysNear,weight:0.5,tolerance:0.001}"
CREDIT = "+objective.credits={mine:{_target_:my_parts.Surprised,view:masked}}"
ALLOW = "allow=[my_parts]"
ONE = "training.num_rollouts=1"


@pytest.fixture
def own_parts(tmp_path, monkeypatch):
    """A package of the user's own; nothing of it is allowed afterwards."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "my_parts.py").write_text(OWN_PARTS)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    yield
    allow_packages([])
    sys.modules.pop("my_parts", None)


def test_each_is_small():
    assert code_lines(OWN_PARTS) <= 40


def test_they_train_a_rollout_and_the_run_goes_on_where_they_are_allowed(own_parts, tmp_path):
    folder = tmp_path / "run"
    trained = run_command(ALLOW, TERM, CREDIT, ONE, f"run_dir={folder}")
    assert trained.code == 0, trained.stderr
    [row] = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    assert float(row["loss/near"]) >= 0
    assert 0 < float(row["credit/zero_share"]) < 1 or float(row["reward/std_all"]) == 0
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["objective"]["terms"]["near"]["_target_"] == "my_parts.StaysNear"

    longer = (f"run_dir={folder}", "resume=true", "training.num_rollouts=2")
    refused = run_command(*longer, short=False)
    assert refused.code == 1
    assert "my_parts.StaysNear" in refused.stderr
    assert "allow=[PACKAGE]" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    # What the folder itself says of it counts for nothing.
    assert config["allow"] == ["my_parts"]
    continued = run_command(ALLOW, *longer, short=False)
    assert continued.code == 0, continued.stderr
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((TERM,), ("my_parts.StaysNear", "objective.terms.near._target_", "allow=[my_package]")),
        ((CREDIT,), ("my_parts.Surprised", "objective.credits.mine._target_")),
        ((ALLOW, TERM.replace("weight:0.5", "weight:-1")), ("objective.terms.near.weight",)),
        ((ALLOW, TERM.replace("0.001", "-1")), ("objective.terms.near.tolerance is 0 or",)),
        ((ALLOW, TERM.replace("tolerance", "slack")), ("unknown key: objective.terms.near.slack",)),
        ((ALLOW, CREDIT.replace("masked", "mist")), ("'mist'", "objective.views.mist")),
        ((ALLOW, CREDIT.replace("Surprised", "Absent")), ("my_parts.Absent", "objective.credits")),
    ],
)
def test_what_is_refused_names_the_key_in_one_line(own_parts, tmp_path, overrides, said):
    refused = run_command(*overrides, f"run_dir={tmp_path / 'run'}")
    assert refused.code == 1
    assert len(refused.stderr.splitlines()) == 1
    for part in said:
        assert part in refused.stderr
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    "names",
    [
        ["os"], ["subprocess"], ["builtins"], ["sys"], ["importlib.util"], ["torch"], ["torch.hub"],
        ["hydra.utils"], ["transformers"], ["lightning"], ["papo"], ["my_parts", "shutil"],
        "my_parts", None, [3], [""], ["my-parts"], [["my_parts"]], {"my_parts": 1},
    ],
)  # fmt: skip
def test_what_no_command_line_may_allow(own_parts, names):
    with pytest.raises(ValueError, match=r"^allow "):
        allow_packages(names)
    with pytest.raises(ValueError, match="constructs only what"):
        find_constructor("my_parts.StaysNear")


def test_of_an_allowed_package_only_what_it_defines_is_named(own_parts):
    allow_packages(["my_parts"])
    assert find_constructor("my_parts.StaysNear").__name__ == "StaysNear"
    assert find_constructor("my_parts.makes_one")(weight=1.0).weight == 1.0
    for target in (
        *("my_parts.Credit", "my_parts.dataclass", "my_parts.papo.objective.Objective"),
        *("my_parts.IMAGE", "my_parts.__builtins__", "my_parts.StaysNear.watch", "my_partss.X"),
        *("os.system", "torch.load", "hydra.utils.call"),
    ):
        with pytest.raises(ValueError, match="constructs only what"):
            find_constructor(target)
    allow_packages([])
    with pytest.raises(ValueError, match="constructs only what"):
        find_constructor("my_parts.StaysNear")


def test_the_configuration_of_a_stranger_allows_nothing(own_parts, tmp_path):
    path = tmp_path / "config.yaml"
    target = {"_target_": "my_parts.StaysNear", "weight": 1.0}
    path.write_text(yaml.safe_dump({"allow": ["my_parts"], "objective": {"terms": {"a": target}}}))
    with pytest.raises(ValueError, match=r"my_parts\.StaysNear.*allow=\[PACKAGE\]"):
        read_run_config(path)
    allow_packages(["my_parts"])
    assert read_run_config(path)["objective"]["terms"]["a"] == target
    allow_packages(["others"])
    with pytest.raises(ValueError, match=r"my_parts\.StaysNear"):
        read_run_config(path)
