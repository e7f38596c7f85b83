"""train.py and evaluate.py with rollout=server, on a server of the lab's policy."""

import csv
import json

import pytest
from evaluation.evaluation_command import records, run_evaluation
from lab_module import lab_policy
from rollout.fake_server import fake_server
from training.command import run_command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served_policy():
    return lab_policy()


@pytest.fixture
def server(served_policy, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    with fake_server(served_policy, folder) as running:
        yield running


def on(server, *overrides):
    return (
        "rollout=server",
        f"rollout.urls=[{server.url}]",
        f"rollout.weights_folder={server.folder}",
        "rollout.max_response_tokens=24",
        "rollout.top_p=1.0",
        "rollout.attempts=1",
        *overrides,
    )


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_on_a_server_trains_as_one_without(server, tmp_path):
    done = run_command(
        *on(server), f"run_dir={tmp_path / 'served'}", "callbacks.rollout_table.every_rollouts=1"
    )
    assert done.code == 0, done.stderr
    found = rows(tmp_path / "served")
    assert len(found) == 2
    for row in found:
        assert 0 <= float(row["rollout/logprob_difference_max"]) < 1e-4
        assert float(row["rollout/logprob_difference_mean"]) <= float(
            row["rollout/logprob_difference_max"]
        )
        assert float(row["rollout/ratio_mean"]) == pytest.approx(1.0, abs=1e-4)
        assert float(row["rollout/local"]) == 0.0
    # Old log-probabilities are the policy's own: the first update of a rollout starts from ratio 1.
    assert float(found[0]["policy/ratio_mean"]) == pytest.approx(1.0, abs=1e-6)
    lines = (tmp_path / "served" / "rollouts.jsonl").read_text().splitlines()
    assert {json.loads(line)["engine"] for line in lines} == {"server"}
    # Before the first rollout, after it, and after the last.
    assert server.paths.count("/finish_weight_update") == 3
    assert server.version.endswith(".2")


def test_without_a_server_nothing_says_so(tmp_path):
    assert run_command(f"run_dir={tmp_path}", "rollout.num_responses=2").code == 0
    assert not [name for name in rows(tmp_path)[0] if name.startswith("rollout/")]
    assert "engine" not in json.loads((tmp_path / "rollouts.jsonl").read_text().splitlines()[0])


def test_a_run_without_its_server_ends_before_it_begins(server, tmp_path):
    server.faults.add("unavailable")
    done = run_command(*on(server), f"run_dir={tmp_path / 'run'}")
    assert done.code == 1
    assert done.stderr.count("\n") == 1
    assert "servers/vllm/README.md" in done.stderr
    assert not (tmp_path / "run" / "run.json").exists()


def test_an_evaluation_on_a_server_keeps_the_same_records(server, tmp_path):
    done = run_evaluation(*on(server), f"run_dir={tmp_path / 'served'}")
    assert done.code == 0, done.stderr
    found = records(tmp_path / "served")
    assert len(found) == 12
    assert {one.engine for one in found} == {"server"}
    local = run_evaluation("rollout.top_k=null", f"run_dir={tmp_path / 'local'}")
    assert local.code == 0, local.stderr
    same = [
        (one.problem_id, one.view, one.response_index, one.seed)
        for one in records(tmp_path / "local")
    ]
    assert [(one.problem_id, one.view, one.response_index, one.seed) for one in found] == same
    assert "engine" not in (tmp_path / "local" / "responses.jsonl").read_text()


def test_an_audit_scores_what_a_server_wrote(server, tmp_path):
    audit = ("audit=grounding", "audit.num_controls=1", "audit.num_responses=1")
    done = run_evaluation(*on(server), *audit, f"run_dir={tmp_path / 'run'}")
    assert done.code == 0, done.stderr
    found = records(tmp_path / "run")
    assert {one.view for one in found} == {"image", "blank", "removed", "swapped"}
    assert {one.engine for one in found} == {"server"}
    lines = (tmp_path / "run" / "grounding.jsonl").read_text().splitlines()
    own = [one for one in map(json.loads, lines) if one["kind"] == "own"]
    assert {one["problem_id"] for one in own} == {one.problem_id for one in found}
    assert all({"blank", "evidence", "control_0"} <= set(one["drops"]) for one in own)
    row, _ = json.loads((tmp_path / "run" / "grounding.json").read_text())
    assert row["evidence_margin"] is not None
    assert "a server wrote 24 of 24 responses; the policy itself scored them" in row["notes"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "Set rollout=server, or objective.importance_cap=null"),
        (("rollout=server", "rollout.top_p=0.99"), "Set rollout.top_p=1.0 and rollout.top_k=null"),
        (("rollout=server", "rollout.top_p=1.0", "rollout.top_k=50"), "rollout.top_k=50"),
    ],
)
def test_a_correction_that_corrects_nothing_is_refused(tmp_path, overrides, message):
    done = run_command("objective.importance_cap=2.0", *overrides, f"run_dir={tmp_path / 'run'}")
    assert done.code == 1
    assert message in done.stderr
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_corrected_run_says_how_much_was_cut(server, tmp_path):
    done = run_command(*on(server), f"run_dir={tmp_path / 'run'}", "objective.importance_cap=1.0")
    assert done.code == 0, done.stderr
    for row in rows(tmp_path / "run"):
        # The same policy in the same precision: about half of the ratios are rounded above 1.
        assert 0.0 < float(row["policy/importance_capped"]) <= 1.0


def test_a_run_goes_on_by_itself_where_its_server_is_away(server, tmp_path):
    began, original = [], server.answer

    def dies_after_the_first_rollout(path, body):
        if path == "/inference/v1/generate" and server.version.endswith(".1"):
            server.faults.add("unavailable")
            return 503, {}
        began.append(path)
        return original(path, body)

    server.answer = dies_after_the_first_rollout
    done = run_command(
        *on(server, "rollout.on_failure=local"),
        f"run_dir={tmp_path / 'run'}",
        "callbacks.rollout_table.every_rollouts=1",
    )
    assert done.code == 0, done.stderr
    assert [float(row["rollout/local"]) for row in rows(tmp_path / "run")] == [0.0, 1.0]
    lines = (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()
    engines = {(one["rollout_step"], one["engine"]) for one in map(json.loads, lines)}
    assert engines == {(1, "server"), (2, "local")}


def test_a_run_goes_on_with_another_server_as_if_it_had_not_stopped(
    server, served_policy, tmp_path
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_command(*on(server), f"run_dir={whole}").code == 0
    first = run_command(*on(server), f"run_dir={parts}", "training.num_rollouts=1")
    assert first.code == 0, first.stderr
    with fake_server(served_policy, server.folder) as other:
        second = run_command(
            f"run_dir={parts}",
            "resume=true",
            "training.num_rollouts=2",
            f"+rollout.urls=[{other.url}]",
            short=False,
        )
        assert second.code == 0, second.stderr
        # Before the second rollout and after it: what was evaluated before the first is not evaluated again.
        assert other.paths.count("/finish_weight_update") == 2
    assert rows(parts) == rows(whole)
