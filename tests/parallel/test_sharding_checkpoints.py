"""Checkpoints of ranks with shards: whole folders or none, read by any number of processes; data never runs."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from cases import TINY, at_rollout, trained
from pool import on_ranks, outcomes

pytestmark = pytest.mark.dist


RUN = {"tiny": TINY, "num_rollouts": 3, "prompts_per_rollout": 4, "prompts_per_minibatch": 4}


def trained_from(ranks, folder, first=None, shards=None, fail_at=None, kill=None):
    """Trains with a checkpoint after every rollout, from that after `first` on."""
    from papo.training.checkpoints import RolloutCheckpoint, checkpoint_path

    callbacks = [RolloutCheckpoint(every_rollouts=1, keep_last=3)]
    if kill is not None and ranks.rank == kill[0]:
        callbacks.insert(0, at_rollout(kill[1], lambda: os.kill(os.getpid(), signal.SIGKILL)))
    if fail_at is not None and ranks.rank == fail_at[0]:
        fail_while_writing(*fail_at[1:])
    checkpoint = None if first is None else checkpoint_path(folder / "checkpoints", first)
    return trained(
        ranks,
        *callbacks,
        folder=folder,
        checkpoint=checkpoint,
        shards={} if shards is None else shards,
        **RUN,
    )


def fail_while_writing(moment, rollout):
    """The disk is full at a moment of writing the checkpoint after a rollout."""
    import torch

    from papo.training import checkpoint_folder

    owner, name = {
        "shards": (checkpoint_folder, "save_file"),
        "state": (torch, "save"),
        "manifest": (json, "dump"),
        "rename": (os, "replace"),
    }[moment]
    original = getattr(owner, name)

    def full(*arguments, **keywords):
        if any(f"rollout_{rollout:06d}.ckpt" in where(one) for one in arguments[:2]):
            raise OSError(28, "No space left on device")
        return original(*arguments, **keywords)

    def where(argument):
        return str(argument if isinstance(argument, Path) else getattr(argument, "name", ""))

    setattr(owner, name, full)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, on_ranks(trained_from, folder)


def same_bits(one, other):
    return all((one["weights"][name] == other["weights"][name]).all() for name in one["weights"])


def difference(one, other):
    return max(
        np.abs(one["weights"][name] - other["weights"][name]).max() for name in one["weights"]
    )


def copy_of(folder, to):
    shutil.copytree(folder, to, dirs_exist_ok=True)
    return to


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_a_checkpoint_is_a_folder_of_shards_their_list_and_the_rest(uninterrupted):
    folder, _ = uninterrupted
    assert names(folder) == [f"rollout_00000{n}.ckpt" for n in (1, 2, 3)]
    files = sorted(path.name for path in (folder / "checkpoints/rollout_000001.ckpt").iterdir())
    assert files == [
        "manifest.json",
        "run.pt",
        "shard_0000_000.safetensors",
        "shard_0001_000.safetensors",
    ]


def test_as_many_ranks_go_on_to_the_same_bits(uninterrupted, tmp_path):
    folder, whole = uninterrupted
    again = on_ranks(trained_from, copy_of(folder, tmp_path), 1)
    assert all(map(same_bits, again, whole))
    assert again[0]["metrics"] == whole[0]["metrics"]


def test_after_a_killed_rank_the_run_goes_on_to_the_same_bits(uninterrupted, tmp_path):
    survivor, dead = outcomes(trained_from, tmp_path, None, None, None, (1, 2))
    assert dead == ("ended", -signal.SIGKILL)
    assert survivor == ("ended", 1) or "rank 1: it ended without a word" in survivor[1]
    assert names(tmp_path) == ["rollout_000001.ckpt"]
    again = on_ranks(trained_from, tmp_path, 1)
    assert all(map(same_bits, again, uninterrupted[1]))


def test_one_process_goes_on_from_the_folder_of_two(uninterrupted, tmp_path):
    from papo.parallel import Ranks

    folder, whole = uninterrupted
    again = trained_from(Ranks(), copy_of(folder, tmp_path), 1)
    assert again["texts"] == whole[0]["texts"]
    assert difference(again, whole[0]) <= 1e-12


def test_two_ranks_go_on_from_the_file_of_one(uninterrupted, tmp_path):
    from papo.parallel import Ranks

    trained_from(Ranks(), tmp_path)
    assert (tmp_path / "checkpoints/rollout_000001.ckpt").is_file()
    for mine in on_ranks(trained_from, tmp_path, 1):
        assert mine["texts"] == uninterrupted[1][0]["texts"]
        assert difference(mine, uninterrupted[1][0]) <= 1e-12


@pytest.mark.parametrize(
    "moment", [(1, "shards"), (0, "state"), (0, "rename")], ids="{0[1]}".format
)
def test_a_full_disk_leaves_a_whole_checkpoint_or_none(moment, uninterrupted, tmp_path):
    from papo.training.checkpoints import newest_whole_checkpoint, remove_unfinished

    rank, name = moment
    copy_of(uninterrupted[0], tmp_path)
    shutil.rmtree(tmp_path / "checkpoints/rollout_000003.ckpt")
    ends = outcomes(trained_from, tmp_path, 2, None, (rank, name, 3))
    assert ends[rank][1].startswith("CheckpointNotWritten: could not write the checkpoint")
    # What waits inside PyTorch is ended from outside.
    peer = ends[1 - rank]
    assert peer == ("ended", 1) or peer[1].startswith(f"PeerFailed: rank {rank}: CheckpointNot")
    before = ["rollout_000001.ckpt", "rollout_000002.ckpt"]
    assert names(tmp_path) == [*before, "rollout_000003.ckpt.unfinished"]
    newest, damaged = newest_whole_checkpoint(tmp_path / "checkpoints")
    assert (newest.name, damaged) == ("rollout_000002.ckpt", [])
    remove_unfinished(tmp_path / "checkpoints")
    assert names(tmp_path) == before


@pytest.fixture
def checkpoints(uninterrupted, tmp_path):
    return copy_of(uninterrupted[0], tmp_path) / "checkpoints"


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("file", ["manifest.json", "run.pt", "shard_0001_000.safetensors"])
@pytest.mark.parametrize(
    "damage", [flip, lambda file: file.unlink(), lambda file: file.write_bytes(b"")]
)
def test_a_damaged_file_is_named_and_the_one_before_is_taken(file, damage, checkpoints):
    from papo.training.checkpoints import newest_whole_checkpoint, put_aside

    damage(checkpoints / "rollout_000003.ckpt" / file)
    newest, [damaged] = newest_whole_checkpoint(checkpoints)
    assert newest.name == "rollout_000002.ckpt"
    assert file in str(damaged)
    assert put_aside(damaged.path).name == "rollout_000003.ckpt.damaged"


def test_a_strangers_checkpoint_runs_no_code_and_reads_no_other_files(checkpoints):
    import pickle

    import torch

    from papo.training.checkpoint_folder import _digest_of
    from papo.training.checkpoints import read_checkpoint

    class Bait:
        def __reduce__(self):
            return (print, ("ran",))

    folder = checkpoints / "rollout_000001.ckpt"
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    entry = next(iter(manifest["tensors"].values()))
    entry["rows"][0][2] = "../rollout_000002.ckpt/shard_0000_000.safetensors"
    manifest["sha256"] = _digest_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="lies in its folder"):
        read_checkpoint(folder)
    torch.save({"state_dict": Bait()}, folder / "run.pt")
    with pytest.raises(pickle.UnpicklingError):
        read_checkpoint(folder)


def test_weights_are_read_without_the_moments_of_the_optimiser(checkpoints, uninterrupted):
    from model_fixtures import tiny_policy

    from papo.training import load_trained_policy, read_checkpoint

    for shard in (checkpoints / "rollout_000003.ckpt").glob("shard_*"):
        assert shard.stat().st_size > 0
    policy = tiny_policy(**TINY).double()
    state = read_checkpoint(checkpoints / "rollout_000003.ckpt", only=("state_dict",))
    load_trained_policy(policy, state)
    for name, parameter in policy.named_parameters():
        assert (parameter.detach().numpy() == uninterrupted[1][0]["weights"][name]).all()
    moment = state["optimizer_states"][0]["state"][0]["exp_avg"]
    assert not hasattr(moment, "shape")


def test_tied_weights_lie_there_once(checkpoints):
    content = json.loads((checkpoints / "rollout_000001.ckpt/manifest.json").read_text())
    heads = [
        entry["rows"]
        for name, entry in content["tensors"].items()
        if "embed_tokens" in name or "lm_head" in name
        if name.startswith("state_dict")
    ]
    assert len(heads) == 2
    assert heads[0] == heads[1]
