"""Threads that encode prompts ahead, beside other ranks: the same rollouts, metrics and weights to the bit, and no thread stays."""

import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from cases import OLD_MASKED_AND_REFERENCE, RESAMPLING, built, facts
from pool import on_ranks

pytestmark = pytest.mark.dist

# Pictures and none, rounds of dynamic sampling, groups that another rank has to read again, both views.
SETTINGS = {
    "tiny": {"hidden_size": 32, "intermediate_size": 32, "vision_hidden_size": 32},
    "text_only": (0, 3),
    **RESAMPLING,
    **OLD_MASKED_AND_REFERENCE,
}


def runs(ranks, shards):
    """A run without threads and one with three on every rank, and which threads encoded."""
    return [one_run(ranks, shards, workers) for workers in (0, 3)]


def one_run(ranks, shards, workers):
    from lab_module import train

    folder = Path(tempfile.mkdtemp())
    module = built(ranks, folder, shards=shards, **SETTINGS)
    reader = module.collector.reader
    reader.encoded.workers = workers
    encode, encoded_by = reader.policy.encode, []

    def noted(problems):
        encoded_by.append(threading.current_thread().name)
        return encode(problems)

    reader.policy.encode = noted
    train(module, folder)
    return {
        **facts(module, module.last_step),
        "ids": module.last_step.rollout.batch.response_ids.numpy().copy(),
        "encoded_by": encoded_by,
        "left": len(reader.encoded._begun),
    }


@pytest.mark.parametrize("shards", [None, {}], ids=["replicas", "shards"])
def test_ranks_that_encode_ahead_do_the_run_of_those_that_do_not(shards):
    answers = on_ranks(runs, shards)
    assert any(plain["moved"] for plain, _ in answers)
    for plain, ahead in answers:
        for name in ("texts", "rewards", "prompts_drawn", "metrics", "own_groups", "moved"):
            assert ahead[name] == plain[name], name
        assert np.array_equal(ahead["ids"], plain["ids"])
        assert ahead["weights"].keys() == plain["weights"].keys()
        for name, weight in plain["weights"].items():
            assert np.array_equal(ahead["weights"][name], weight), name
        assert set(plain["encoded_by"]) == {"MainThread"}
        assert all(name.startswith("papo-prompts") for name in ahead["encoded_by"])
        # Each prompt once, as without threads; the last rollout reads for none after it.
        assert len(ahead["encoded_by"]) == len(plain["encoded_by"])
        assert not ahead["left"]
