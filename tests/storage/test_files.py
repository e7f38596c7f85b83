"""What is cut is kept, what is damaged is named, what is held is refused."""

import errno
import fcntl
import os
import random
import zipfile

import pytest
import torch

from papo.storage.files import cut_lines, locked, read_object
from papo.storage.tables import read_numbers
from papo.training.checkpoints import DamagedCheckpoint, newest_whole_checkpoint, require_whole

LINES = [b"step,reward\n", b"1,0.5\n", b"2,0.25\n", b"3,0.75\n"]


def up_to(step):
    return lambda number, line: int(line.split(b",")[0]) <= step


@pytest.fixture
def table(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(b"".join(LINES))
    return tmp_path / "metrics.csv"


def test_lines_that_are_cut_are_kept_beside_under_their_header(table):
    cut = cut_lines(table, up_to(1), header_lines=1)
    assert table.read_bytes() == b"".join(LINES[:2])
    assert cut.kept.read_bytes() == b"".join([LINES[0], *LINES[2:]])
    assert (cut.count, cut.kept.parent) == (2, table.parent)
    assert cut.kept.name.startswith("metrics.csv.cut-")
    assert sorted(os.listdir(table.parent)) == sorted([table.name, cut.kept.name])


def test_where_nothing_is_cut_nothing_is_written(table):
    before = table.stat()
    assert cut_lines(table, up_to(3), header_lines=1) is None
    assert os.listdir(table.parent) == [table.name]
    assert table.stat() == before
    assert cut_lines(table.with_name("no table"), up_to(3)) is None


def test_half_a_line_is_dropped_alone(table):
    table.write_bytes(b"".join(LINES) + b"4,0.")
    assert cut_lines(table, up_to(3), header_lines=1) is None
    assert table.read_bytes() == b"".join(LINES)
    assert os.listdir(table.parent) == [table.name]


def test_two_cuts_within_a_second_are_both_kept(table):
    first = cut_lines(table, up_to(2), header_lines=1)
    second = cut_lines(table, up_to(1), header_lines=1)
    assert first.kept.read_bytes() == LINES[0] + LINES[3]
    assert second.kept.read_bytes() == LINES[0] + LINES[2]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_cut_that_fails_loses_no_line(table, monkeypatch, failing):
    calls, replace = [], os.replace

    def fails(*arguments):
        calls.append(None)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        with pytest.raises(OSError, match="No space"):
            cut_lines(table, up_to(1), header_lines=1)
    assert table.read_bytes() == b"".join(LINES)
    assert not list(table.parent.glob("*.unfinished"))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "delimiter"),
        (b"\xff\xfe\x00{", "is damaged"),
        (b"[" * 100_000, "nested too deep"),
        (b"[1]", "it holds list"),
        (b'{"a": "text"}', "a is 'text'"),
        (b"{}", "a is missing"),
    ],
)
def test_a_damaged_object_is_named_with_what_to_do(tmp_path, content, what):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=what) as raised:
        read_object(tmp_path / "run.json", remedy="Restore it.", fields={"a": int})
    assert str(raised.value).startswith(f"{tmp_path / 'run.json'} is damaged: ")
    assert str(raised.value).endswith(". Restore it.")


def test_a_missing_object_is_named_with_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.json is missing\. Restore it\."):
        read_object(tmp_path / "run.json", remedy="Restore it.")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "no row"),
        (b"a,b\n", "no row"),
        (b"a,b\n1,2\n3\n", "line 3: 1 cells under 2 columns"),
        (b"a,b\n1,x\n", "line 2: could not convert"),
        (b"a,b\n1,\xff\n", "utf-8"),
        (b"[" * 200_000, "field larger"),
    ],
)
def test_a_damaged_table_is_named_with_what_to_do(tmp_path, content, what):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"metrics\.csv is damaged.*{what}.*Restore it"):
        read_numbers(tmp_path / "metrics.csv", remedy="Restore it.")


def test_numbers_are_columns(tmp_path):
    (tmp_path / "metrics.csv").write_text("a,b\n1,nan\n2,-inf\n")
    found = read_numbers(tmp_path / "metrics.csv", remedy="")
    assert list(found) == ["a", "b"]
    assert found["a"] == (1.0, 2.0)
    assert found["b"][1] == float("-inf")


def test_the_lock_of_a_killed_process_is_free_again(tmp_path):
    child = os.fork()
    if child == 0:
        lock = locked(tmp_path)
        lock.__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    with locked(tmp_path):
        pass


def test_without_locks_the_work_goes_on_with_a_warning(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.warns(UserWarning, match="has no locks"), locked(tmp_path):
        pass


@pytest.fixture
def checkpoint(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {f"layer_{i}": torch.randn(40, 5, generator=generator) for i in range(4)}
    torch.save({"state": state, "step": 7}, tmp_path / "rollout_000007.ckpt")
    return tmp_path / "rollout_000007.ckpt"


def test_no_flipped_bit_reaches_the_weights(checkpoint):
    """It is noticed, or lies where nobody reads."""
    whole = checkpoint.read_bytes()
    require_whole(checkpoint)
    expected = torch.load(checkpoint, weights_only=True)
    choose, noticed = random.Random(0), 0
    for _ in range(400):
        position, bit = choose.randrange(len(whole)), choose.randrange(8)
        changed = bytes([whole[position] ^ 1 << bit])
        checkpoint.write_bytes(whole[:position] + changed + whole[position + 1 :])
        try:
            require_whole(checkpoint)
        except DamagedCheckpoint:
            noticed += 1
            continue
        found = torch.load(checkpoint, weights_only=True)
        assert found["step"] == 7
        assert all(torch.equal(found["state"][k], v) for k, v in expected["state"].items())
    assert noticed > 200


def test_no_shorter_checkpoint_is_whole(checkpoint):
    whole = checkpoint.read_bytes()
    for size in range(0, len(whole), 97):
        checkpoint.write_bytes(whole[:size])
        with pytest.raises(DamagedCheckpoint):
            require_whole(checkpoint)


def test_a_checkpoint_is_read_in_pieces(checkpoint, monkeypatch):
    sizes = []
    read = zipfile.ZipExtFile.read

    def watched(self, n=-1):
        sizes.append(n)
        return read(self, n)

    monkeypatch.setattr(zipfile.ZipExtFile, "read", watched)
    require_whole(checkpoint)
    assert sizes
    assert all(0 < size <= 2**20 for size in sizes)


def test_the_newest_whole_checkpoint_is_found_behind_damaged_ones(checkpoint):
    folder = checkpoint.parent
    (folder / "rollout_000008.ckpt").write_bytes(b"<html>404</html>" * 100)
    (folder / "rollout_000009.ckpt").write_bytes(checkpoint.read_bytes()[:500])
    (folder / "rollout_000010.ckpt").write_bytes(b"")
    newest, damaged = newest_whole_checkpoint(folder)
    assert newest == checkpoint
    assert [error.path.name for error in damaged] == [
        "rollout_000010.ckpt", "rollout_000009.ckpt", "rollout_000008.ckpt"
    ]  # fmt: skip
