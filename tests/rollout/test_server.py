"""Rollouts on a server: the tokens, the weights and the log-probabilities are this policy's, or the run stops."""

import signal
import socket
import threading
from pathlib import Path

import pytest
import torch
from model_fixtures import mixed_problems, tiny_policy
from rollout.fake_server import FAULTS, fake_server

from papo.models import checkpoint_weights
from papo.parallel import Ranks
from papo.rollout import (
    ServerDiffers,
    ServerRollouts,
    ServerUnavailable,
    SharedPrefillSampler,
    WeightSource,
)
from papo.types import derive_seeds


def engine(policy, urls, folder, **overrides):
    settings = {
        **{"urls": urls, "model": "policy", "weights_folder": str(folder), "weights_dtype": None},
        **{"part_bytes": 100_000, "temperature": 1.0, "top_p": 1.0, "top_k": None},
        **{"max_response_tokens": 12, "tolerance": 1e-4, "at_once": 4, "timeout_seconds": 20.0},
        **{"attempts": 2, "pause_seconds": 0.001, "on_failure": "stop", "max_rows": 64},
    }
    return ServerRollouts(policy=policy, **{**settings, **overrides})


def source(policy, run="run-1"):
    return WeightSource(weights=lambda: checkpoint_weights(policy.model), ranks=Ranks(), run=run)


def changed(policy, seed=1):
    """Moves the weights, as an update would, only more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.02 * noise.to(parameter.dtype))
    return policy


@pytest.fixture
def policy():
    return tiny_policy()


@pytest.fixture
def server(policy, tmp_path):
    with fake_server(policy, tmp_path) as running:
        yield running


def ask(rollouts, policy, num_responses=3):
    groups = policy.encode(mixed_problems())
    return rollouts.sample(groups, num_responses, derive_seeds(1, len(groups)))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_server_writes_what_the_policy_would_and_says_with_what_probability(family, tmp_path):
    policy = tiny_policy(family)
    with fake_server(policy, tmp_path) as server:
        changed(policy)
        rollouts = engine(policy, [server.url], tmp_path)
        rollouts.follow(source(policy), "0")
        found = ask(rollouts, policy)
        groups = policy.encode(mixed_problems())
        with torch.no_grad():
            scores = policy.score(groups, found.ids, found.mask)
    torch.testing.assert_close(
        found.behaviour_logprobs, scores["image"].logprobs, rtol=0, atol=1e-5
    )
    own = SharedPrefillSampler(
        policy=policy,
        temperature=1.0,
        top_p=1.0,
        top_k=None,
        max_response_tokens=12,
        max_rows=64,
    )
    seeds = [seed % 2**48 for seed in derive_seeds(1, 3)]
    expected = own.sample(groups, 3, seeds)
    assert torch.equal(found.ids * found.mask, expected.ids * expected.mask)
    assert found.texts == expected.texts
    assert torch.equal(found.finished, expected.finished)
    assert found.from_server.all()


def test_weights_follow_after_every_change_and_only_then(policy, server, tmp_path):
    rollouts = engine(policy, [server.url], tmp_path)
    for version in ("0", "1"):
        changed(policy, seed=int(version) + 1)
        rollouts.follow(source(policy), version)
        rollouts.follow(source(policy), version)
        assert server.version == f"run-1.{version}"
        ask(rollouts, policy)
        for name, value in policy.named_parameters():
            assert torch.equal(dict(server.policy.named_parameters())[name], value), name
    assert server.paths.count("/finish_weight_update") == 2
    assert server.paths.count("/update_weights") > 4
    assert list(tmp_path.iterdir()) == []
    order = [path for path in server.paths if "weight" in path or "cache" in path or "?" in path]
    assert order[0] == "/pause?mode=wait"
    assert order[-2:] == ["/reset_encoder_cache", "/weight_info"]


def test_prompts_are_dealt_over_servers_by_their_place(policy, server, tmp_path):
    with fake_server(policy, tmp_path) as other:
        rollouts = engine(policy, [server.url, other.url], tmp_path)
        rollouts.follow(source(policy), "0")
        ask(rollouts, policy)
        prompts = [
            [
                len(body["content_parts"])
                for body in one.bodies
                if body.get("sampling_params", {}).get("n") == 3
            ]
            for one in (server, other)
        ]
    # One picture, none, two.
    assert sorted(prompts[0]) == [1, 2]
    assert prompts[1] == [0]


def test_a_half_updated_server_is_found_out_by_its_log_probabilities(policy, server, tmp_path):
    rollouts = engine(policy, [server.url], tmp_path)
    server.faults.add("half_update")
    rollouts.follow(source(changed(policy)), "0")
    with pytest.raises(
        ServerDiffers, match=r"its weights or its preprocessing differ.*tolerance=0.0001"
    ):
        ask(rollouts, policy)
    assert not [body for body in server.bodies if body.get("sampling_params", {}).get("n") == 3]


def test_every_hand_over_is_probed_before_a_response_is_asked_for(policy, server, tmp_path):
    rollouts = engine(policy, [server.url], tmp_path, top_p=0.9)
    for version in ("0", "1"):
        rollouts.follow(source(changed(policy)), version)
        server.bodies.clear()
        ask(rollouts, policy)
        ask(rollouts, policy)
        asked = [body["sampling_params"] for body in server.bodies if "sampling_params" in body]
        probes, responses = asked[:8], asked[8:]
        # Eight prompts, whatever their number, drawn from everything; then two calls of three.
        assert [(one["n"], one["top_p"], one["max_tokens"]) for one in probes] == [(1, 1.0, 12)] * 8
        assert [(one["n"], one["top_p"]) for one in responses] == [(3, 0.9)] * 6
        assert len({one["seed"] for one in probes}) == 8


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("other_tokenizer", "another tokenizer"),
        ("two_versions", "another run, 'x.1'|another run, x.1"),
        ("wrong_ids", "token ids of this policy's vocabulary"),
        ("banned_id", "none that stands for a picture"),
        ("no_logprobs", "has a log-probability"),
        ("minus_infinity", "has a log-probability"),
        ("cut", "--max-model-len"),
        ("one_choice_less", "1 choices"),
        ("too_long", "more than .* bytes"),
    ],
)
def test_an_answer_that_this_policy_cannot_have_written_stops_the_run(
    policy, server, tmp_path, fault, message
):
    assert fault in FAULTS
    # Also where a server that is away would not.
    rollouts = engine(policy, [server.url], tmp_path, on_failure="local")
    rollouts.follow(source(policy), "0")
    server.faults.add(fault)
    with pytest.raises(ServerDiffers, match=message):
        ask(rollouts, policy)


@pytest.mark.parametrize("fault", ["truncated", "no_json", "unavailable", "late"])
def test_a_server_that_is_away_is_asked_again_and_then_ends_the_run(
    policy, server, tmp_path, fault
):
    seconds = 0.3 if fault == "late" else 20.0
    rollouts = engine(policy, [server.url], tmp_path, timeout_seconds=seconds, at_once=1)
    rollouts.follow(source(policy), "0")
    asked = len(server.paths)
    server.faults.add(fault)
    with pytest.raises(ServerUnavailable, match=r"127.0.0.1.*\(asked 2 times\)"):
        ask(rollouts, policy)
    assert len(server.paths) == asked + 2 + (fault != "unavailable")


def test_a_server_that_dies_is_named(policy, tmp_path):
    with fake_server(policy, tmp_path) as server:
        rollouts = engine(policy, [server.url], tmp_path)
        rollouts.follow(source(policy), "0")
    with pytest.raises(ServerUnavailable, match=f"{server.url}.*does not answer"):
        ask(rollouts, policy)


def test_where_a_server_is_away_the_policy_samples_itself_until_its_weights_change(
    policy, server, tmp_path, caplog
):
    rollouts = engine(policy, [server.url], tmp_path, on_failure="local")
    rollouts.follow(source(policy), "0")
    server.faults.add("unavailable")
    found = ask(rollouts, policy)
    assert not found.from_server.any()
    assert torch.equal(found.behaviour_logprobs, found.logprobs)
    asked = len(server.paths)
    assert torch.equal(ask(rollouts, policy).ids, found.ids)
    assert len(server.paths) == asked
    assert caplog.text.count("rollout.on_failure=local") == 1
    server.faults.clear()
    rollouts.follow(source(policy), "1")
    assert ask(rollouts, policy).from_server.all()


def test_an_update_that_a_killed_trainer_left_is_ended(policy, server, tmp_path):
    server.is_updating = True
    rollouts = engine(policy, [server.url], tmp_path)
    rollouts.follow(source(policy), "0")
    assert ask(rollouts, policy).from_server.all()


@pytest.mark.parametrize("on_failure", ["stop", "local"])
def test_a_server_that_refuses_the_weights_is_not_sampled_from(
    policy, server, tmp_path, on_failure
):
    rollouts = engine(policy, [server.url], tmp_path, on_failure=on_failure)
    server.faults.add("refuses_weights")
    if on_failure == "stop":
        with pytest.raises(ServerUnavailable, match=r"answers 500.*is damaged"):
            rollouts.follow(source(policy), "0")
    else:
        rollouts.follow(source(policy), "0")
        assert not ask(rollouts, policy).from_server.any()
    assert "/inference/v1/generate" not in server.paths
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_keeps_the_old_version_is_found_out(policy, server, tmp_path):
    rollouts = engine(policy, [server.url], tmp_path)
    rollouts.follow(source(policy), "0")
    server.faults.add("stale")
    with pytest.raises(
        ServerDiffers, match=r"took the weights run-1.1, and says that it has run-1.0"
    ):
        rollouts.follow(source(policy), "1")


def test_a_response_of_other_weights_of_this_run_is_refused(policy, server, tmp_path):
    rollouts = engine(policy, [server.url], tmp_path)
    rollouts.follow(source(policy), "0")
    server.version = "run-1.7"
    with pytest.raises(ServerDiffers, match=r"with the weights .*run-1.7.*expected run-1.0"):
        ask(rollouts, policy)


def test_two_runs_on_one_server_find_each_other_out(policy, server, tmp_path):
    first, second = (engine(policy, [server.url], tmp_path) for _ in range(2))
    first.follow(source(policy, run="run-1"), "0")
    second.follow(source(policy, run="run-2"), "0")
    ask(second, policy)
    with pytest.raises(ServerDiffers, match=r"weights of another run, run-2\.0; this one is run-1"):
        ask(first, policy)
    with pytest.raises(ServerDiffers, match=r"weights of another run, run-2\.0"):
        first.follow(source(policy, run="run-1"), "1")
    assert server.version == "run-2.0"


def test_a_redirect_is_not_followed(policy, server, tmp_path):
    server.faults.add("redirect")
    with pytest.raises(ServerDiffers, match="answers 302"):
        engine(policy, [server.url], tmp_path).servers[0].max_model_len()


def test_a_key_of_the_environment_is_sent_and_not_shown(policy, server, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPO_ROLLOUT_KEY", "sesame-open")
    rollouts = engine(policy, [server.url], tmp_path)
    rollouts.follow(source(policy), "0")
    assert {headers.get("Authorization") for headers in server.headers} == {"Bearer sesame-open"}
    assert "sesame" not in repr(rollouts.servers)


def settings_of(server, folder, **overrides):
    return {
        **{"urls": [server], "model": "policy", "weights_folder": str(folder)},
        **{"max_response_tokens": 12, "timeout_seconds": 5.0, "attempts": 1, "pause_seconds": 0.0},
        **overrides,
    }


def test_an_absent_server_is_named_before_a_model_is_loaded(tmp_path):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(ServerUnavailable, match=r"does not answer.*servers/vllm/README.md"):
            ServerRollouts.preflight(settings_of(url, tmp_path))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model": "another"}, "serves .*policy.*rollout.model=another"),
        ({"max_response_tokens": 512}, "room for 512 tokens.*rollout.max_response_tokens=512"),
        ({"weights_folder": "/nowhere"}, "rollout.weights_folder"),
        ({"urls": []}, "at least one server"),
        ({"urls": ["http://a:1", "http://a:1"]}, "each named once"),
        ({"urls": ["http://user:key@host:1"]}, "without a path or a key"),
        ({"urls": ["file:///etc/passwd"]}, "http://HOST:PORT"),
        ({"attempts": 0}, "rollout.attempts is at least 1"),
    ],
)
def test_what_a_server_cannot_serve_is_said_before_a_model_is_loaded(
    server, tmp_path, overrides, message
):
    ServerRollouts.preflight(settings_of(server.url, tmp_path))
    with pytest.raises(ValueError, match=message):
        ServerRollouts.preflight(settings_of(server.url, tmp_path, **overrides))
    with pytest.raises(ValueError, match="room for 512 tokens; a prompt of 501 "):
        ServerRollouts.preflight(settings_of(server.url, tmp_path), longest_prompt=501)


def test_a_prompt_that_leaves_no_room_for_the_response_is_refused(policy, tmp_path):
    with fake_server(policy, tmp_path, max_model_len=40) as server:
        rollouts = engine(policy, [server.url], tmp_path)
        rollouts.follow(source(policy), "0")
        with pytest.raises(ServerDiffers, match="has room for 40 tokens; a prompt of"):
            ask(rollouts, policy)
    assert "/inference/v1/generate" not in server.paths


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"on_failure": "panic"}, "rollout.on_failure is one of stop, local"),
        ({"weights_dtype": "float8"}, "rollout.weights_dtype is one of null, float32, bfloat16"),
        ({"tolerance": 0.0}, "rollout.tolerance is above 0"),
        ({"temperature": 0.5}, "rollout.temperature=0.5 and model.temperature=1.0"),
        ({"top_p": 1.5}, "rollout.top_p"),
    ],
)
def test_impossible_settings_are_refused(policy, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        engine(policy, ["http://127.0.0.1:1"], tmp_path, **overrides)


def test_a_family_whose_tiles_a_server_would_cut_itself_is_refused(tmp_path):
    with pytest.raises(ValueError, match="rollout=shared_prefill"):
        engine(tiny_policy("smolvlm"), ["http://localhost:1"], tmp_path)


def test_pictures_are_sent_as_the_tower_sees_them_and_once(policy, server, tmp_path):
    rollouts = engine(policy, [server.url], tmp_path)
    rollouts.follow(source(policy), "0")
    ask(rollouts, policy)
    token = policy.encoder.image_token_id
    questions = [body for body in server.bodies if body.get("sampling_params", {}).get("n") == 3]
    assert len(questions) == 3
    for body in questions:
        assert body["token_ids"].count(token) == len(body["content_parts"])
        group = server.read(body["token_ids"], body["content_parts"])
        [ours] = [
            own
            for own in policy.encode(mixed_problems())
            if own.prompt_ids.tolist() == group.prompt_ids.tolist()
        ]
        if ours.patches is not None:
            torch.testing.assert_close(group.patches, ours.patches, rtol=0, atol=1e-6)


def test_files_of_a_failed_hand_over_are_removed(policy, tmp_path):
    rollouts = engine(policy, ["http://127.0.0.1:9"], tmp_path / "absent")
    with pytest.raises(ValueError, match=r"cannot be written to .*rollout.weights_folder"):
        rollouts.follow(source(policy), "0")
    assert list(Path(tmp_path).iterdir()) == []


def test_a_signal_ends_a_run_that_waits_for_a_server(policy, server, tmp_path):
    """It is raised at once, and no thread that still waits keeps the process."""

    class Stopped(Exception):
        pass

    def stop(number, frame):
        raise Stopped

    rollouts = engine(policy, [server.url], tmp_path, timeout_seconds=200.0)
    rollouts.follow(source(policy), "0")
    server.faults.add("late")
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        threading.Timer(0.5, signal.raise_signal, [signal.SIGUSR1]).start()
        with pytest.raises(Stopped):
            ask(rollouts, policy)
    finally:
        signal.signal(signal.SIGUSR1, before)
    waiting = [one for one in threading.enumerate() if one.name == "papo-rollout"]
    assert waiting
    assert all(one.daemon for one in waiting)


def test_what_is_begun_finishes_with_the_responses_of_one_call(policy, server, tmp_path):
    rollouts = engine(policy, [server.url], tmp_path)
    rollouts.follow(source(policy), "0")
    groups = policy.encode(mixed_problems())
    found = rollouts.begin(groups, 3, derive_seeds(1, len(groups))).finish()
    expected = ask(rollouts, policy)
    assert torch.equal(found.ids, expected.ids)
    assert found.texts == expected.texts
    assert found.from_server.all()


def test_what_is_begun_and_let_go_of_asks_no_more(policy, server, tmp_path):
    rollouts = engine(policy, [server.url], tmp_path, at_once=1)
    rollouts.follow(source(policy), "0")
    held, original, asked = threading.Event(), server.answer, []

    def hold(path, body):
        if body.get("sampling_params", {}).get("n") == 3:
            asked.append(None)
            held.wait(20)
        return original(path, body)

    server.answer = hold
    groups = policy.encode(mixed_problems())
    rollouts.sample(groups, 1, derive_seeds(1, len(groups)))
    before = set(threading.enumerate())
    begun = rollouts.begin(groups, 3, derive_seeds(1, len(groups)))
    begun.stop()
    held.set()
    for thread in set(threading.enumerate()) - before:
        if thread.name == "papo-rollout":
            thread.join(20)
    assert len(asked) <= 1
