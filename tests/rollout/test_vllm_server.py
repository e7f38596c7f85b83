"""A real vLLM server writes what the policy would, with the weights that it was given last, or says no.

`make server-test` installs vLLM for a CPU and runs this; nothing else does.
"""

import os
import socket
import threading
import time
from copy import deepcopy

import pytest
import torch
from model_fixtures import noise_image, problem
from safetensors import safe_open
from safetensors.torch import save_file
from vllm_server import (
    KEY,
    MAX_MODEL_LEN,
    Served,
    one_image_token_each,
    responses,
    source,
)

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        os.environ.get("PAPO_TEST_VLLM") != "1",
        reason="needs a vLLM server, which make server-test installs and starts",
    ),
]

MODELS = ["qwen2_5_vl tied", "qwen2_5_vl untied", "qwen3_vl tied"]
every_model = pytest.mark.parametrize("served", MODELS, indirect=True)
one_model = pytest.mark.parametrize("served", MODELS[:1], indirect=True)

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def served(request, tmp_path_factory):
    made = Served(request.param, tmp_path_factory.mktemp("served"))
    yield made
    made.server.stop()


@every_model
def test_it_writes_what_the_policy_would_after_every_update(served):
    assert served.difference(served.initial) < TOLERANCE
    for _ in range(2):
        policy, version = served.synced()
        assert served.server.version == version
        assert served.difference(policy) < TOLERANCE
        for group in served.groups:
            answer = served.server.generate(policy, group)
            assert answer["prompt_token_ids"] == group.prompt_ids.tolist()
            spans = [choice["weight_versions"] for choice in answer["choices"]]
            assert [[span["version"] for span in each] for each in spans] == [[version]] * 4


@every_model
def test_old_weights_are_far_from_new_ones_and_have_their_old_name(served):
    _, version = served.synced()
    ahead, _ = served.moved()
    assert served.difference(ahead) > 0.1
    assert served.server.version == version


@pytest.fixture
def rollouts(served, monkeypatch):
    """Makes the trainer's engine for a policy."""
    from papo.rollout import ServerRollouts

    monkeypatch.setenv("PAPO_ROLLOUT_KEY", KEY)

    def make(policy, kind=ServerRollouts, **settings):
        return kind(
            policy=policy,
            urls=[served.server.url],
            model="policy",
            weights_folder=str(served.server.weights),
            weights_dtype=None,
            part_bytes=100_000,
            temperature=1.0,
            top_p=1.0,
            top_k=None,
            tolerance=TOLERANCE,
            at_once=8,
            timeout_seconds=120.0,
            attempts=1,
            pause_seconds=1.0,
            on_failure="stop",
            max_rows=64,
            **{"max_response_tokens": 24, **settings},
        )

    return make


@every_model
def test_four_rollouts_of_papo_on_the_server_are_the_policys_own(served, rollouts, tmp_path):
    from lab_module import lab_module, reward_by_row, train

    from papo.rollout import ServerRollouts

    class Watched(ServerRollouts):
        def sample(self, groups, num_responses, seeds):
            found = super().sample(groups, num_responses, seeds)
            own = policy.score(groups, found.ids, found.mask)["image"].logprobs
            differences.append(float((own - found.behaviour_logprobs)[found.mask].abs().max()))
            banned = torch.isin(found.ids, torch.tensor(policy.banned_token_ids))
            assert not (banned & found.mask).any()
            without_picture.append(sum(group.patches is None for group in groups))
            return found

    differences, without_picture, policy = [], [], deepcopy(served.initial)
    problems = [
        problem("no picture", images=(), id="text")
        if place % 4 == 1
        else problem(images=(noise_image(40 + 9 * place, 70, place),), id=str(place))
        for place in range(16)
    ]
    module = lab_module(
        tmp_path,
        policy=policy,
        source=problems,
        reward=reward_by_row(4),
        learning_rate=0.5,
        num_rollouts=4,
        prompts_per_minibatch=2,
        prompts_per_microbatch=2,
    )
    module.collector.engine = rollouts(policy, Watched)
    module.collector.weights = source(policy, "four-rollouts")
    before = deepcopy(policy)
    train(module, tmp_path)
    print(f"{served.name}: largest differences in four rollouts {differences}")
    assert len(differences) == 4
    assert sum(without_picture) == 4
    assert max(differences) < TOLERANCE
    assert served.difference(before) > 1e-3  # the updates did move the policy
    assert not list(served.server.weights.glob("four-rollouts*"))


@one_model
def test_the_trainer_refuses_a_server_that_has_other_weights(served, rollouts):
    from papo.rollout import ServerDiffers

    policy, _ = served.moved()
    stale, _ = served.moved()
    engine = rollouts(policy)
    engine.follow(source(policy, "own"), "0")
    engine.sample(served.groups, 2, [1, 2, 3])
    # Old weights under the name of new ones: only their log-probabilities tell.
    engine.follow(source(stale, "own"), "1")
    with pytest.raises(ServerDiffers, match="other log-probabilities"):
        engine.sample(served.groups, 2, [1, 2, 3])
    engine.follow(source(policy, "own"), "2")
    engine.sample(served.groups, 2, [1, 2, 3])
    served.server.sync(policy, "another-run.2")
    with pytest.raises(ServerDiffers, match="another run"):
        engine.sample(served.groups, 2, [1, 2, 3])


@one_model
def test_the_trainer_ends_an_update_that_a_killed_one_left(served, rollouts):
    left, version = served.moved()
    served.server.begin()
    [name] = served.server.write_parts(left, version, 1)
    served.server.post("/update_weights", {"update_info": {"name": name}})
    policy, _ = served.moved()
    engine = rollouts(policy)
    engine.follow(source(policy, "next"), "0")
    engine.sample(served.groups, 2, [1, 2, 3])


@one_model
def test_the_trainer_refuses_responses_that_the_server_would_cut(served, rollouts):
    from papo.rollout import ServerDiffers

    policy, _ = served.moved()
    engine = rollouts(policy, max_response_tokens=MAX_MODEL_LEN)
    engine.follow(source(policy, "long"), "0")
    with pytest.raises(ServerDiffers, match=f"room for {MAX_MODEL_LEN} tokens"):
        engine.sample(served.groups, 2, [1, 2, 3])


@every_model
def test_an_update_that_lacks_a_part_changes_nothing_until_it_is_whole(served):
    policy, version = served.synced()
    following, next_version = served.moved()
    served.server.begin()
    first, second, third = served.server.write_parts(following, next_version, 3)
    for name in (third, first):
        served.server.post("/update_weights", {"update_info": {"name": name}})
    refusal = served.server.refusal("/finish_weight_update", {"weight_version": next_version})
    assert "has 3 parts; missing: 2" in refusal
    assert served.server.version == version
    served.server.post("/resume")
    assert served.difference(policy) < TOLERANCE
    served.server.post("/update_weights", {"update_info": {"name": second}})
    served.server.end(next_version)
    assert served.server.version == next_version
    assert served.difference(following) < TOLERANCE


@one_model
def test_a_broken_part_is_named_and_the_weights_stay_as_they_were(served):
    policy, version = served.synced()
    following, next_version = served.moved()
    served.server.begin()
    first, second = served.server.write_parts(following, next_version, 2)
    whole = (served.server.weights / second).read_bytes()
    (served.server.weights / second).write_bytes(whole[:-10])
    served.server.post("/update_weights", {"update_info": {"name": first}})
    refusal = served.server.refusal("/update_weights", {"update_info": {"name": second}})
    assert f"the part '{second}' is damaged" in refusal
    served.server.refusal("/finish_weight_update", {"weight_version": next_version})
    served.server.post("/resume")
    assert served.server.version == version
    assert served.difference(policy) < TOLERANCE
    served.server.sync(following, next_version)
    assert served.difference(following) < TOLERANCE


@one_model
@pytest.mark.parametrize("change", ["left out", "of another shape", "unknown"])
def test_weights_that_are_not_the_models_are_named_before_any_is_loaded(served, change):
    policy, version = served.synced()
    following, next_version = served.moved()
    served.server.begin()
    [name] = served.server.write_parts(following, next_version, 1)
    with safe_open(served.server.weights / name, "pt") as part:
        weights = {key: part.get_tensor(key) for key in part.keys()}  # noqa: SIM118
    chosen = "model.language_model.layers.1.self_attn.k_proj.weight"
    weight = weights.pop(chosen)
    if change == "of another shape":
        weights[chosen] = weight[:, :-1].contiguous()
    if change == "unknown":
        chosen = "lm_head.weight"
        weights[chosen] = weight
    save_file(weights, served.server.weights / name)
    if change == "left out":
        served.server.post("/update_weights", {"update_info": {"name": name}})
        refusal = served.server.refusal("/finish_weight_update", {"weight_version": next_version})
    else:
        refusal = served.server.refusal("/update_weights", {"update_info": {"name": name}})
    assert chosen in refusal
    served.server.give_up()
    assert served.server.version == version
    assert served.difference(policy) < TOLERANCE


@one_model
@pytest.mark.parametrize(
    "name", ["../model/model.safetensors", "/etc/passwd", "run-00001-of-00001.pt"]
)
def test_files_outside_the_folder_are_never_read(served, name):
    served.server.begin()
    assert "a part is named" in served.server.refusal(
        "/update_weights", {"update_info": {"name": name}}
    )
    served.server.post("/resume")


@one_model
def test_the_folder_cannot_be_moved(served):
    where = {"init_info": {"folder": str(served.server.weights)}}
    served.server.post("/init_weight_transfer_engine", where)
    refusal = served.server.refusal(
        "/init_weight_transfer_engine", {"init_info": {"folder": "/etc"}}
    )
    assert "fixed when it started" in refusal


@one_model
def test_an_update_that_a_killed_trainer_left_can_be_ended(served):
    left, version = served.moved()
    served.server.begin()
    [name] = served.server.write_parts(left, version, 1)
    served.server.post("/update_weights", {"update_info": {"name": name}})
    # The trainer is gone, and another one comes.
    assert "already active" in served.server.refusal("/start_weight_update")
    served.server.give_up()
    policy, _ = served.synced()
    assert served.difference(policy) < TOLERANCE


@one_model
def test_a_banned_token_is_never_written(served):
    policy, _ = served.synced()
    asked = {"num_responses": 8, "max_tokens": 48}

    def num_banned():
        ids, mask, _ = responses(served.server.generate(policy, served.groups[1], **asked))
        return int((torch.isin(ids, torch.tensor(policy.adapter.vision_token_ids)) & mask).sum())

    assert num_banned() == 0
    # A policy that may write them does, so that the line above says something.
    type(policy).banned_token_ids, kept = (), type(policy).banned_token_ids
    try:
        assert num_banned() > 0
    finally:
        type(policy).banned_token_ids = kept


@one_model
def test_the_server_cuts_what_does_not_fit_and_says_how_much_fits(served):
    [model] = served.server.ask("/v1/models")[1]["data"]
    assert model["max_model_len"] == MAX_MODEL_LEN
    group = served.groups[1]
    room = MAX_MODEL_LEN - len(group.prompt_ids)
    answer = served.server.generate(served.initial, group, num_responses=8, max_tokens=5_000)
    lengths = {len(c["token_ids"]) for c in answer["choices"] if c["finish_reason"] == "length"}
    assert lengths <= {room}
    assert lengths or all(len(c["token_ids"]) <= room for c in answer["choices"])


@one_model
def test_pictures_of_expanded_ids_are_expanded_again(served):
    group = served.groups[0]
    asked = one_image_token_each(served.initial, group.prompt_ids.tolist())
    assert asked.count(served.initial.adapter.image_token_id) == 1
    assert len(asked) < len(group.prompt_ids)
    answer = served.server.generate(served.initial, group)
    assert len(answer["prompt_token_ids"]) == len(group.prompt_ids)


@one_model
def test_a_seed_gives_its_responses_again_and_its_neighbour_shares_some(served):
    policy, _ = served.synced()
    ids, _, _ = responses(served.server.generate(policy, served.groups[0], seed=7))
    again, _, _ = responses(served.server.generate(policy, served.groups[0], seed=7))
    assert torch.equal(ids, again)
    # Hence seeds of prompts are hashes: response j of seed s is response 0 of seed s + j.
    other = served.server.generate(policy, served.groups[0], seed=8)
    first = min(other["choices"], key=lambda choice: choice["index"])["token_ids"]
    assert ids[1, : len(first)].tolist() == first


@one_model
def test_an_update_in_the_middle_of_a_response_shows_in_its_versions(served, monkeypatch):
    policy, version = served.synced()
    following, next_version = served.moved()
    # Its end tokens are banned instead of heeded, so that the response is long.
    ends = policy.end_token_ids
    monkeypatch.setattr(type(policy), "end_token_ids", ())
    monkeypatch.setattr(type(policy), "banned_token_ids", ends)
    answers = []

    def ask():
        answers.append(
            served.server.generate(policy, served.groups[1], num_responses=4, max_tokens=400)
        )

    before = tokens_written(served.server)
    asking = threading.Thread(target=ask)
    asking.start()
    while asking.is_alive() and tokens_written(served.server) < before + 8:
        time.sleep(0.02)
    served.server.post("/pause?mode=keep")
    served.server.post("/start_weight_update")
    for name in served.server.write_parts(following, next_version):
        served.server.post("/update_weights", {"update_info": {"name": name}})
    served.server.end(next_version)
    asking.join()
    spans = [choice["weight_versions"] for choice in answers[0]["choices"]]
    assert [version, next_version] in [[span["version"] for span in each] for each in spans]


def tokens_written(server):
    lines = server.ask("/metrics")[1].splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith("vllm:generation_tokens_total")
    )


@one_model
def test_a_picture_that_is_named_by_a_url_is_not_fetched(served, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0)
        url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/a.png"
        monkeypatch.setattr("vllm_server.png", lambda picture: url)
        with pytest.raises(AssertionError, match="allowed domains"):
            served.server.generate(served.initial, served.groups[0])
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


@one_model
def test_it_answers_a_trainer_with_the_key_and_nobody_else(served):
    assert served.server.ask("/health", key=None)[0] == 200
    for path in ("/v1/models", "/weight_info", "/metrics"):
        assert served.server.ask(path, key=None)[0] == 401
        assert served.server.ask(path, key="wrong")[0] == 401
        assert served.server.ask(path)[0] == 200
    for path, body in (("/collective_rpc", {"method": "x"}), ("/update_weight_version", {})):
        assert served.server.ask(path, body)[0] == 404
    assert served.server.ask("/update_weights", {"update_info": {}}, key=None)[0] == 401
