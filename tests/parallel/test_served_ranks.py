"""Several ranks that sample on one server do the run of one rank that does."""

from pathlib import Path

import pytest
from cases import TINY, built, facts
from pool import on_ranks, outcomes
from test_replicas import largest_difference, same_metrics

pytestmark = pytest.mark.dist

SHORT = {"tiny": TINY, "num_rollouts": 2, "prompts_per_rollout": 4, "prompts_per_minibatch": 4}
LORA = {"lora": {"language": {"r": 2, "alpha": 4, "targets": ["q_proj"]}, "vision": None}}
NOWHERE = "http://127.0.0.1:9"


def served(ranks, url, weights, folder, settings=SHORT, without=(), on_failure="stop"):
    """Trains on a server, which the ranks in `without` cannot reach."""
    from lab_module import train

    from papo.models import checkpoint_weights
    from papo.rollout import ServerRollouts, WeightSource

    module = built(ranks, folder, **settings)
    policy = module.policy_module.policy
    module.collector.engine = ServerRollouts(
        policy=policy,
        urls=[NOWHERE if ranks.rank in without else url],
        model="policy",
        weights_folder=weights,
        weights_dtype="float32",
        part_bytes=20_000,
        temperature=1.0,
        top_p=1.0,
        top_k=None,
        max_response_tokens=8,
        tolerance=1e-4,
        at_once=4,
        timeout_seconds=60.0,
        attempts=1,
        pause_seconds=0.0,
        on_failure=on_failure,
        max_rows=64,
    )
    module.collector.weights = WeightSource(
        weights=lambda: checkpoint_weights(policy.model), ranks=ranks, run="run"
    )
    train(module, Path(folder))
    return facts(module, module.last_step)


@pytest.fixture
def server(tmp_path):
    from model_fixtures import tiny_policy
    from rollout.fake_server import fake_server

    weights = tmp_path / "weights"
    weights.mkdir()
    with fake_server(tiny_policy(**TINY), weights) as running:
        yield running


@pytest.mark.parametrize(
    "settings",
    [SHORT, {**SHORT, "shards": {}, "tiny": {**TINY, **LORA}}],
    ids=["replicas", "adapters in shards"],
)
def test_two_ranks_on_a_server_do_the_run_of_one(server, tmp_path, settings):
    from papo.parallel import Ranks

    given = (server.url, str(server.folder), str(tmp_path))
    alone = served(Ranks(), *given, settings)
    files = [body["update_info"]["name"] for body in server.bodies if "update_info" in body]
    before = len(server.paths)
    for mine in on_ranks(served, *given, settings):
        assert mine["texts"] == alone["texts"]
        assert largest_difference(mine["weights"], alone["weights"]) <= 1e-9
        assert same_metrics(mine["metrics"], alone["metrics"]) <= 1e-6
        assert mine["metrics"]["rollout/local"] == 0.0
    # One rank hands over, the same files as alone.
    later = [body for body in server.bodies[before:] if "update_info" in body]
    assert [body["update_info"]["name"] for body in later] == files
    assert server.paths[before:].count("/finish_weight_update") == 2
    assert list(server.folder.iterdir()) == []


def test_one_rank_of_two_without_a_server_ends_both_by_name(server, tmp_path):
    given = (server.url, str(server.folder), str(tmp_path), SHORT)
    ended = outcomes(served, *given, (1,))
    assert [kind for kind, _ in ended] == ["raised", "raised"]
    assert "rank 1" in ended[0][1]
    for _, text in ended:
        assert f"{NOWHERE}, asked for" in text


def test_one_rank_of_two_without_a_server_samples_itself_and_says_so(server, tmp_path):
    given = (server.url, str(server.folder), str(tmp_path), SHORT)
    for mine in on_ranks(served, *given, (1,), "local"):
        assert mine["metrics"]["rollout/local"] == 0.5
        assert mine["metrics"]["rollout/logprob_difference_max"] < 1e-4
