"""model.gradient_checkpointing=auto: decided from memory before the run, said, kept in its rows, and no number changes."""

import csv

import torch
from command import SHORT, run_command
from hydra import compose, initialize_config_dir

AUTO = ("model.gradient_checkpointing=auto", "training.prompts_per_microbatch=2")


def counted(*overrides):
    """The memory of the run of a command, with all activations kept and computed again."""
    from papo.commands import front_door
    from papo.commands.run_memory import unloaded_run_memory
    from papo.commands.training.plan import make_plan
    from papo.commands.training.preflight import memory_facts
    from papo.parallel import Ranks

    with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
        plan = make_plan(compose("train", overrides=[*SHORT, *AUTO, *overrides]))
    facts = memory_facts(plan, torch.device("cpu"), 1)
    return [
        unloaded_run_memory(
            plan.config, plan.settings, available=available, ranks=Ranks(), **facts
        ).memory
        for available in (None, 0)
    ]


def run_with(available, run_dir, monkeypatch):
    from papo.commands.training import preflight

    monkeypatch.setattr(preflight, "available_bytes", lambda device: available)
    return run_command(*AUTO, f"run_dir={run_dir}")


def rows(run_dir):
    with (run_dir / "metrics.csv").open() as lines:
        return list(csv.DictReader(lines))


def test_a_run_is_the_same_whether_it_computes_again(tmp_path, monkeypatch):
    kept, _ = (run.estimate().moments["the update"] for run in counted())
    for available, word in ((kept, "off"), (kept - 1, "on")):
        outcome = run_with(available, tmp_path / word, monkeypatch)
        assert outcome.code == 0, outcome.stderr
        [line] = [line for line in outcome.stdout.splitlines() if "gradient checkpointing:" in line]
        assert line.startswith(f"gradient checkpointing: {word}, for")
    kept_rows, again_rows = rows(tmp_path / "off"), rows(tmp_path / "on")
    for row, name in ((kept_rows, "0"), (again_rows, "1")):
        assert {one.pop("update/gradient_checkpointing") for one in row} == {name}
    assert kept_rows == again_rows


def test_a_random_model_is_counted_too():
    kept, again = counted("model=tiny_qwen2_5_vl", "training.prompts_per_microbatch=1")
    assert (kept.checkpointing, again.checkpointing) == (False, True)
    assert again.estimate().activations < kept.estimate().activations


def test_prompts_are_counted_as_often_as_they_are_read():
    windows, full = (
        counted(f"model=tiny_{family}", "training.prompts_per_microbatch=1")[0]
        for family in ("gemma3", "qwen2_5_vl")
    )
    assert windows.microbatches.count_tokens([9], [4, 2]) == 2 * (9 + 4)
    assert full.microbatches.count_tokens([9], [4, 2]) == 9 + 4 + 2
    [twopass, _] = counted("model=tiny_gemma3", "model.scoring=twopass")
    assert twopass.microbatches.count_tokens([9], [4, 2]) == 9 + 4 + 2


def test_a_run_that_fits_neither_way_is_refused_before_it_is_begun(tmp_path, monkeypatch):
    _, again = counted()
    least = again.least().estimate()
    outcome = run_with(least.peak - 1, tmp_path / "run", monkeypatch)
    assert outcome.code == 1
    assert f"needs {least.summary()}" in outcome.stderr
    assert not (tmp_path / "run").exists()
