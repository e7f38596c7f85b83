"""What configurations may construct: conf/, the command line, and files that came with a folder."""

import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from evaluation.evaluation_command import run_evaluation
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from training.command import run_command

import papo
from papo.commands import analysis, analyze, building, front_door
from papo.commands.constructors import (
    CONF,
    find_constructor,
    read_config,
    read_run_config,
    shipped_targets,
)
from papo.commands.policy_source import find_policy
from scripts import export_policy

# What conf/ names beside classes. A stranger's file may call them, so each is looked at by hand: they
# build objects and write nothing.
FUNCTIONS = {
    "papo.evaluation.boxed_answer",
    "papo.evaluation.flawless_lab_response",
    "papo.lab.held_out_set",
    "papo.models.build_tiny_policy",
    "papo.models.load_policy",
    "papo.training.loggers.wandb_logger",
}


def papo_modules() -> list[ModuleType]:
    return [
        import_module(found.name)
        for found in pkgutil.walk_packages(papo.__path__, "papo.")
        if not found.name.endswith("__main__")
    ]


def is_defined_in(module: ModuleType, thing: object) -> bool:
    return (inspect.isclass(thing) or inspect.isfunction(thing)) and (
        thing.__module__ == module.__name__
    )


def test_everything_that_conf_names_is_a_public_name_of_its_package():
    public = {
        id(thing)
        for module in papo_modules()
        for name, thing in vars(module).items()
        if not name.startswith("_") and is_defined_in(module, thing)
    }
    assert len(shipped_targets()) > 30
    for target in shipped_targets():
        found = find_constructor(target)
        assert target.partition(".")[0] != "papo" or id(found) in public
    functions = {t for t in shipped_targets() if inspect.isfunction(find_constructor(t))}
    assert functions == FUNCTIONS


def test_every_target_of_conf_is_seen_by_the_list():
    for file in CONF.rglob("*.yaml"):
        lines = [line.partition("#")[0] for line in file.read_text().splitlines()]
        named = [re.findall(r"_target_: *([\w.]+)", line) for line in lines]
        assert "\n".join(lines).count("_target_") == sum(map(len, named)), file
        # Hydra makes its own of these; a run's configuration may not name them.
        of_runs = {t for each in named for t in each if t != "papo.commands.multirun.ShowJobs"}
        assert shipped_targets() >= of_runs, file


def test_nothing_that_a_module_of_papo_merely_imported_is_a_constructor():
    tried = 0
    for module in papo_modules():
        for name, thing in vars(module).items():
            home = getattr(thing, "__module__", None)
            if isinstance(home, str) and f"{home}.".startswith("papo."):
                continue
            tried += 1
            inner = [f".{each}" for each in ("load", "system", "run")] * isinstance(
                thing, ModuleType
            )
            for end in ("", *inner):
                target = f"{module.__name__}.{name}{end}"
                try:
                    found = find_constructor(target)
                except ValueError:
                    continue
                assert found.__module__.startswith("papo."), target
    assert tried > 1000


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "papo",
        "papo.",
        "papo..os.system",
        ".papo.types",
        "papo.types.",
        "papoo.types.Problem",
        "papo.models",
        "papo.models.load_policy.__globals__",
        "papo.models.VisionLanguagePolicy.save_pretrained",
        "papo.models.loading._find_config",
        "papo.models.loading.AutoConfig.from_pretrained",
        "papo.training.checkpoints.torch.load",
        "papo.training.checkpoints.torch.hub.load",
        "papo.storage.provenance.subprocess.run",
        "papo.storage.files.os.system",
        "papo.storage.files.Path",
        "papo.nothing.Here",
        "papo.commands.front_door.command",
        "torch.load",
        "torch.optim.adamw.torch.load",
        "torch.optim.optimizer.torch.hub.load",
        "torch.optim.AdamW.step",
        "torch.optim.lr_scheduler.partial",
        "lightning.pytorch.os.system",
        "lightning.pytorch.seed_everything",
        "lightning.pytorch.trainer.trainer.os.system",
        "transformers.utils.import_utils.os.system",
        "transformers.AutoModel.from_pretrained",
        "transformers.utils.hub.subprocess.run",
        "transformers.pipeline",
        "${oc.env:HOME}",
        "",
        None,
        3,
        ["papo.models.load_policy"],
        {"_target_": "papo.models.load_policy"},
    ],
)
def test_what_is_not_defined_where_its_name_says_is_no_constructor(target):
    with pytest.raises(ValueError, match="constructs only what"):
        find_constructor(target)


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.SGD",
        "torch.optim.lr_scheduler.LinearLR",
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.loggers.CSVLogger",
        "transformers.Qwen2_5_VLForConditionalGeneration",
        "papo.rewards.MathReward",
    ],
)
def test_the_command_line_may_name_classes_that_conf_does_not(target):
    assert inspect.isclass(find_constructor(target))


def test_an_escaped_interpolation_is_not_resolved_behind_the_check(tmp_path):
    marker = tmp_path / "ran"
    hidden = rf"\${{oc.create:{{_target_:os.system,_args_:[touch {marker}]}}}}"
    node = OmegaConf.create({"_target_": "papo.masking.BlankMask", "grid": hidden})
    with pytest.raises(ValueError, match="grid still has an interpolation"):
        building.instantiate(node)
    assert not marker.exists()


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


TINY = {"_target_": "papo.models.build_tiny_policy"}


def hostile_models(folder: Path, marker: Path) -> dict[str, str]:
    """Names of tricks -> the text of a config.yaml whose construction would make the marker."""
    (folder / "hubconf.py").write_text(
        f"import pathlib\ndef model(**_):\n    pathlib.Path({str(marker)!r}).touch()\n"
    )
    (folder / "weights.pt").write_bytes(pickle.dumps(Payload(marker)))
    touch = ["touch", str(marker)]
    run = {"_target_": "papo.storage.provenance.subprocess.run", "_args_": [touch]}
    hub = {"repo_or_dir": str(folder), "source": "local", "model": "model"}
    load = {"f": str(folder / "weights.pt"), "weights_only": False}
    models = {
        "hub code": {"_target_": "papo.training.checkpoints.torch.hub.load", **hub},
        "pickle": {"_target_": "papo.training.checkpoints.torch.load", **load},
        "pickle of an optimiser": {"_target_": "torch.optim.adamw.torch.load", **load},
        "process": run,
        "nested": {**TINY, "seed": run},
        "in a list": {**TINY, "lora": [1, [run]]},
        "in _args_": {**TINY, "_args_": [run]},
        "partial": {**run, "_partial_": True},
        "not recursive": {**TINY, "_recursive_": False, "lora": run},
        "converted": {**TINY, "_convert_": "object", "lora": run},
        "system": {"_target_": "lightning.pytorch.os.system", "command": " ".join(touch)},
        "system of transformers": {
            "_target_": "transformers.utils.hub.os.system",
            "_args_": [touch],
        },
        "relative": {"_target_": "papo..os.system", "_args_": [" ".join(touch)]},
        "a list as target": {
            "_target_": ["papo.storage.provenance.subprocess.run"],
            "_args_": [touch],
        },
        "a node as target": {"_target_": run},
        "no target": {"seed": 1},
        "writes a file": {
            "_target_": "papo.storage.files.write_atomically",
            "path": str(marker),
            "text": "",
        },
        "another part of papo": {"_target_": "papo.training.callbacks.RolloutTable"},
        "code of the model": {"_target_": "papo.models.load_policy", "trust_remote_code": True},
        "code, as text": {"_target_": "papo.models.load_policy", "trust_remote_code": "false"},
        "code, as a list": {"_target_": "papo.models.load_policy", "trust_remote_code": [0]},
        "a kernel": {"_target_": "papo.models.load_policy", "attn_implementation": "a/kernel"},
        "environment": {**TINY, "family": "${oc.env:HOME}"},
        "target by interpolation": {**run, "_target_": "${oc.env:TARGET}"},
        "created": {**TINY, "lora": "${oc.create:{_target_:os.system}}"},
        "escaped": {**TINY, "lora": r"\${oc.create:{_target_:os.system}}"},
    }
    texts = {name: yaml.safe_dump({"model": model}) for name, model in models.items()}
    return {
        **texts,
        "yaml object": f"model: !!python/object/apply:os.system ['touch {marker}']\n",
        "yaml object in it": f"model:\n  a: !!python/object/apply:pathlib.Path.touch ['{marker}']\n",
        "aliases": "a: &a [1, 1]\nb: &b [*a, *a]\nmodel: [*b, *b]\n",
        "deep": f"model: {'[' * 3000}{']' * 3000}\n",
        "huge": "model: " + "x" * 1_000_001,
        "no mapping": "- 1\n",
        "no model": "seed: 1\n",
        "not text": "model: \x00\n",
    }


@pytest.fixture
def run(tmp_path):
    """As much of a run as is looked at before its model is constructed."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "rollout_000001.ckpt").write_bytes(b"")
    return folder


def export(run: Path, monkeypatch, capsys) -> str:
    command = ["export_policy.py", str(run), str(run / "exported")]
    monkeypatch.setattr(sys, "argv", command)
    assert export_policy.main() == 1
    return capsys.readouterr().err


def test_no_configuration_of_a_stranger_runs_code(run, tmp_path, monkeypatch, capsys):
    marker = tmp_path / "ran"
    monkeypatch.setenv("TARGET", "papo.storage.provenance.subprocess.run")
    tricks = hostile_models(tmp_path, marker)
    assert len(tricks) > 30
    for name, text in tricks.items():
        (run / "config.yaml").write_text(text)
        message = export(run, monkeypatch, capsys)
        assert len(message.splitlines()) == 1, name
        assert "config.yaml" in message, name
        assert len(message) < 1000, name
        assert not marker.exists(), name


@pytest.mark.parametrize("trick", ["hub code", "pickle", "code of the model", "environment"])
def test_evaluating_the_run_of_a_stranger_runs_none_of_its_code(run, tmp_path, trick):
    marker = tmp_path / "ran"
    (run / "config.yaml").write_text(hostile_models(tmp_path, marker)[trick])
    outcome = run_evaluation(f"checkpoint={run}", f"run_dir={tmp_path / 'out'}")
    assert outcome.code == 1
    assert len(outcome.stderr.splitlines()) == 1
    assert "config.yaml" in outcome.stderr
    assert not marker.exists()


def test_analysing_the_run_of_a_stranger_only_looks_at_what_it_trained_on(
    run, tmp_path, monkeypatch
):
    marker = tmp_path / "ran"
    commands = []
    fails = SimpleNamespace(
        run=lambda command, **_: commands.append(command) or subprocess.CompletedProcess(command, 1)
    )
    monkeypatch.setattr(analysis, "subprocess", fails)
    monkeypatch.setattr(front_door, "_failures", [])
    data = {"_target_": "papo.lab.os.system", "_args_": [f"touch {marker}"], "shape": "$(touch x)"}
    for content in ({"data": data}, {"data": "papo.lab."}, {"data": ["papo.lab."]}, {}):
        (run / "config.yaml").write_text(yaml.safe_dump(content))
        arguments = ["analyze.py", f"runs=[{run}]", f"run_dir={tmp_path / 'out'}"]
        monkeypatch.setattr(sys, "argv", arguments)
        analyze.main()
        assert front_door.exit_code() == 1
    assert not marker.exists()
    assert len(commands) == 1, "the one that names the lab is handed to evaluate.py, as an argument"
    assert "benchmark='lab_$(touch x)'" in commands[0]


@pytest.mark.parametrize(
    "override",
    [
        "model._target_=papo.training.checkpoints.torch.hub.load",
        "optimizer._target_=torch.optim.adamw.torch.load",
        "+callbacks.mine={_target_:lightning.pytorch.os.system}",
        "data._target_=papo.storage.provenance.subprocess.run",
    ],
)
def test_training_constructs_nothing_that_its_package_does_not_define(override, tmp_path):
    outcome = run_command(override, f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert "constructs only what" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def resolved(*overrides: str) -> str:
    """The config.yaml of a run of train.py."""
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        config = compose("train", overrides=["run_dir=/tmp/run", *overrides])
    return OmegaConf.to_yaml(config, resolve=True)


@pytest.mark.parametrize(
    "overrides", [(), ("+experiment=papo_geo3k", "logger=all"), ("masking=semantic_policy",)]
)
def test_the_configuration_of_a_run_of_conf_comes_back_as_it_was(overrides, tmp_path):
    text = resolved(*overrides)
    (tmp_path / "config.yaml").write_text(text)
    assert read_run_config(tmp_path / "config.yaml") == OmegaConf.to_container(
        OmegaConf.create(text)
    )


def test_what_only_the_command_line_may_name_comes_from_the_command_line(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(resolved("optimizer._target_=torch.optim.SGD", "model.trust_remote_code=true"))
    with pytest.raises(ValueError, match=r"torch\.optim\.SGD.*optimizer\._target_="):
        read_run_config(path, given=["model.trust_remote_code"])
    with pytest.raises(ValueError, match=r"model\.trust_remote_code=True"):
        read_run_config(path, given=["optimizer._target_"])
    with pytest.raises(ValueError, match=r"model\.trust_remote_code=True"):
        read_run_config(path, keys=("model",))
    given = ["model.trust_remote_code", "optimizer._target_", "no.such.key"]
    config = read_run_config(path, given=given)
    assert "trust_remote_code" not in config["model"]
    assert config["optimizer"]["lr"] == 3e-4
    path.write_text(
        yaml.safe_dump({"model": {"_target_": "papo.analysis.errors.labellers.judge.RemoteJudge"}})
    )
    with pytest.raises(ValueError, match="RemoteJudge"):
        read_run_config(path, keys=("model",))


def test_the_command_line_of_an_evaluation_may_trust_the_code_of_a_model(run):
    (run / "config.yaml").write_text(resolved("model.trust_remote_code=true"))
    chosen = OmegaConf.create({"temperature": 1.0, "trust_remote_code": True})
    with pytest.raises(ValueError, match=r"model\.trust_remote_code=True"):
        find_policy(str(run), chosen)
    source = find_policy(str(run), chosen, changed=["trust_remote_code"])
    assert source.model.trust_remote_code is True
    assert source.model.freeze_vision is False


def test_a_configuration_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.yaml is not there"):
        read_config(tmp_path / "config.yaml")
