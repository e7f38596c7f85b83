"""A run on ranks that holds weights back and goes back: rank 0 decides, all do it, as one process would."""

import csv
import math

import pytest
from cases import trained
from pool import on_ranks
from test_replicas import largest_difference

pytestmark = pytest.mark.dist


def guarded(ranks, folder, shards, every_rollouts):
    """Rings after the third rollout and goes back to the newest checkpoint."""
    from papo.safeguard import CollapseDetector, Controller, Rollbacks
    from papo.training.callbacks import Safeguard
    from papo.training.checkpoints import RolloutCheckpoint

    guard = Safeguard(
        detector=CollapseDetector(
            signals={"step": {"columns": ["rollout_step"], "floor": 0.01, "memory": 100}},
            limit=0.05,
            allowance=0.0,
            excess_cap=0.1,
            baseline_rollouts=2,
        ),
        controller=Controller(
            signals={"step": {"columns": ["rollout_step"], "above": 1.5, "width": 9.0}},
            baseline_rollouts=1,
            memory=0.0,
            fall=0.5,
            rise=1.0,
            least=0.0,
        ),
        rollbacks=Rollbacks(max_rollbacks=3, quiet=0.1, shrink=0.5),
    )
    saves = RolloutCheckpoint(every_rollouts=every_rollouts, keep_last=9)
    found = trained(ranks, guard, saves, folder=folder, shards=shards, num_rollouts=3, gamma=0.1)
    return {**found, "state": guard.state_dict()}


@pytest.mark.parametrize(
    ("shards", "every_rollouts", "returned_to"),
    [(None, 1, 2), ({}, 1, 2), ({}, 9, 0)],
    ids=["replicas", "shards", "shards, to the start"],
)
def test_ranks_go_back_together(shards, every_rollouts, returned_to, tmp_path):
    from papo.parallel import Ranks

    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    alone = guarded(Ranks(), tmp_path / "alone", None, every_rollouts)
    together = on_ranks(guarded, tmp_path / "together", shards, every_rollouts)
    for mine in together:
        assert mine["state"] == together[0]["state"]
        assert mine["state"]["rollbacks"] == alone["state"]["rollbacks"]
        assert largest_difference(mine["weights"], alone["weights"]) <= 1e-12
    [*_, last] = csv.DictReader((tmp_path / "together" / "metrics.csv").read_text().splitlines())
    assert float(last["safeguard/returned_to"]) == returned_to
    assert not math.isnan(float(last["safeguard/factor"]))
