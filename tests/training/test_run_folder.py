"""Tables that can be cut back, checkpoints that are whole, folders that do not mix runs."""

import json
import os
from importlib.metadata import version

import pytest
import torch

from papo.storage.tables import append_csv, append_jsonl, truncate_csv, truncate_jsonl
from papo.training import RunFolder, Start, newest_checkpoint
from papo.training.checkpoints import AtomicCheckpointIO, RolloutCheckpoint, checkpoint_path

ROWS = [{"rollout_step": i, "reward/mean": i / 3} for i in range(1, 6)]


@pytest.fixture
def table(tmp_path):
    for row in ROWS:
        append_csv(tmp_path / "metrics.csv", row)
    return tmp_path / "metrics.csv"


def test_numbers_read_back_as_they_were(table):
    lines = table.read_text().splitlines()
    assert lines[0] == "rollout_step,reward/mean"
    assert [float(line.split(",")[1]) for line in lines[1:]] == [row["reward/mean"] for row in ROWS]


@pytest.mark.parametrize("cut_off", [0, 1, 7, 25])
def test_a_table_cut_back_and_continued_is_the_whole_table(table, cut_off):
    """Also where the last row, or all of them, were written in part."""
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) - cut_off])
    truncate_csv(table, 3)
    for row in ROWS[3:]:
        append_csv(table, row)
    assert table.read_bytes() == whole


def test_a_header_written_in_part_is_written_again(table):
    whole = table.read_bytes()
    table.write_bytes(whole[:9])
    truncate_csv(table, 0)
    for row in ROWS:
        append_csv(table, row)
    assert table.read_bytes() == whole


def test_a_row_with_other_columns_is_refused(table):
    with pytest.raises(ValueError, match="columns"):
        append_csv(table, {"rollout_step": 6, "reward/std": 0.0})


def test_records_with_odd_line_breaks_survive_cutting_anywhere(tmp_path):
    """A crash may cut the last record short within a character."""
    path = tmp_path / "rollouts.jsonl"
    for step in (1, 2, 3):
        append_jsonl(path, {"rollout_step": step, "response": "a\u2028b\x85c\nd\r\x0be 面积"})
    written = path.read_bytes()
    first_two = b"".join(line + b"\n" for line in written.split(b"\n")[:2])
    for size in range(len(first_two), len(written) + 1):
        path.write_bytes(written[:size])
        truncate_jsonl(path, 2)
        assert path.read_bytes() == first_two


def start_of(path, *, resume=False, num_rollouts=5, sets_length=False, **config):
    training = {"num_rollouts": num_rollouts}
    return Start(
        config={"seed": 1, "run_dir": str(path), "resume": resume, "training": training, **config},
        config_text="seed: 1\n",
        overrides=["a=1"],
        resume=resume,
        sets_length=sets_length,
    )


def open_folder(path, **settings):
    """Returns the folder, and what it says of a run that goes on."""
    start = start_of(path, **settings)
    folder = RunFolder(path)
    folder.open(start)
    return folder, folder.go_on(start)


def test_a_new_folder_says_what_the_run_is(tmp_path):
    open_folder(tmp_path / "run")
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["overrides"] == ["a=1"]
    assert run["seed"] == 1
    assert run["versions"]["torch"] == version("torch")
    assert (tmp_path / "run" / "config.yaml").read_text() == "seed: 1\n"


def test_a_folder_whose_making_was_interrupted_is_made_again(tmp_path):
    open_folder(tmp_path)
    (tmp_path / "run.json").unlink()
    open_folder(tmp_path)
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize("key", ["logger", "callbacks"])
def test_what_watches_a_run_may_change_on_resume(tmp_path, key):
    open_folder(tmp_path, **{key: {"a": 1}})
    open_folder(tmp_path, resume=True, **{key: {"b": 2}})


def test_what_a_run_computes_may_not_change_on_resume(tmp_path):
    open_folder(tmp_path, objective={"gamma": 0.1})
    with pytest.raises(ValueError, match=r"objective\.gamma was 0\.1, is 0\.2"):
        open_folder(tmp_path, resume=True, objective={"gamma": 0.2})


def test_resuming_an_empty_folder_starts_a_run(tmp_path):
    folder, notes = open_folder(tmp_path, resume=True)
    assert folder.checkpoint is None
    assert notes == []
    assert not folder.is_done(start_of(tmp_path, resume=True))


def test_resuming_forgets_rows_after_the_newest_checkpoint(tmp_path, table):
    open_folder(tmp_path / "run")
    table.rename(tmp_path / "run" / "metrics.csv")
    io, checkpoints = AtomicCheckpointIO(), tmp_path / "run" / "checkpoints"
    for step in (2, 4):
        io.save_checkpoint({"step": step}, checkpoint_path(checkpoints, step))
    (checkpoints / "rollout_000005.ckpt.unfinished").write_bytes(b"half")
    folder, _ = open_folder(tmp_path / "run", resume=True)
    assert folder.checkpoint == checkpoint_path(checkpoints, 4)
    assert folder.last_metrics() == ROWS[3]
    assert sorted(os.listdir(checkpoints)) == ["rollout_000002.ckpt", "rollout_000004.ckpt"]


@pytest.mark.parametrize("table", ["rollouts.jsonl", "evaluations.jsonl", "faults.jsonl"])
def test_a_line_that_a_kill_left_half_written_is_gone_when_the_run_goes_on(tmp_path, table):
    open_folder(tmp_path)
    (tmp_path / table).write_text('{"rollout_step": 1, "key": "mask')
    open_folder(tmp_path, resume=True)
    assert (tmp_path / table).read_text() == ""


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.system, ("true",))

    torch.save({"bomb": Bomb()}, tmp_path / "bomb.ckpt")
    with pytest.raises(Exception, match="Weights only load failed"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "bomb.ckpt")


def test_the_newest_few_checkpoints_stay(tmp_path):
    from lab_module import lab_module, train

    module = lab_module(tmp_path, num_rollouts=5)
    train(module, tmp_path, RolloutCheckpoint(every_rollouts=2, keep_last=2))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["rollout_000004.ckpt", "rollout_000005.ckpt"]
    assert newest_checkpoint(tmp_path / "checkpoints").name == "rollout_000005.ckpt"
