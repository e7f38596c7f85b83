"""Cosines of hidden states, taken while a pass runs: what the plain model's states say, whichever way it is made."""

import pytest
import torch
from model_fixtures import problem, tiny_policy
from scoring_cases import NUM_RESPONSES, case, in_true_float64
from torch.nn.functional import cosine_similarity

from papo.models.families.qwen_vl import grid_thw

BACKENDS = ("padded", "twopass", "split", "merged", "flex")
WANTED = {("image", "image_cosine"), ("image", "image_cosine_layers")}


def plain_states(policy, group, ids):
    """The states of a prompt and a response, of one plain forward of the Hugging Face model, and the image tokens."""
    sequence = torch.cat([group.prompt_ids, ids])[None]
    is_image = sequence == policy.adapter.image_token_id
    inputs = {}
    if group.patches is not None:
        inputs = {
            "pixel_values": group.patches,
            "image_grid_thw": grid_thw(group.pictures),
            "mm_token_type_ids": is_image.long(),
        }
    policy.model.model.rope_deltas = None  # cached state of an earlier call
    states = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, args: states.append(args[0][0]))
        for layer in policy.adapter.language_model.layers
    ]
    output = policy.model(input_ids=sequence, output_hidden_states=True, **inputs)
    for hook in hooks:
        hook.remove()
    if not policy.model.config.model_type.startswith("qwen3"):
        # Those of Qwen3-VL are without the deepstack features that the next layer reads, by its version.
        for ours, theirs in zip(states, output.hidden_states, strict=False):
            torch.testing.assert_close(ours, theirs[0])
    return [*states, output.hidden_states[-1][0]], is_image[0]


def naive_cosines(policy, group, ids):
    """By the definitions, one pair of tokens at a time; 0 where the prompt has no image token."""
    states, is_image = plain_states(policy, group, ids)
    own = range(len(group.prompt_ids), len(group.prompt_ids) + len(ids))
    images = is_image[: len(group.prompt_ids)].nonzero()[:, 0].tolist()
    last, layers = [], []
    for place in own:
        if not images:
            last.append(0.0)
            layers.append(0.0)
            continue
        mean = states[-1][images].mean(0)
        last.append(float(cosine_similarity(states[-1][place], mean, dim=0)))
        pairs = [
            float(cosine_similarity(layer[place], layer[image], dim=0))
            for layer in states
            for image in images
        ]
        layers.append(sum(pairs) / len(pairs))
    return last, layers


@pytest.mark.parametrize("scoring", BACKENDS)
def test_every_way_finds_what_the_plain_model_says(family, scoring, monkeypatch):
    policy = in_true_float64(tiny_policy(family, scoring=scoring), monkeypatch)
    groups, ids, mask = case(policy)
    with torch.no_grad():
        seen = policy.measure(groups, ids, mask, wanted=WANTED)["image"]
        alone = policy.score(groups, ids, mask)["image"].logprobs
    # Reading one token more changes nothing that was said before.
    torch.testing.assert_close(seen.logprobs, alone, rtol=0, atol=1e-12)
    for row in (0, 1, 3, 8, 11):
        with torch.no_grad():
            last, layers = naive_cosines(policy, groups[row // NUM_RESPONSES], ids[row][mask[row]])
        for found, expected in ((seen.image_cosine, last), (seen.image_cosine_layers, layers)):
            expected = torch.tensor(expected, dtype=torch.float64)
            torch.testing.assert_close(found[row][mask[row]], expected, rtol=0, atol=1e-9)
            assert (found[row][~mask[row]] == 0).all()
    text = slice(NUM_RESPONSES, 2 * NUM_RESPONSES)
    assert groups[1].patches is None
    assert (seen.image_cosine[text] == 0).all()
    assert (seen.image_cosine_layers[text] == 0).all()
    assert seen.image_cosine.abs().max() > 0.01


@pytest.mark.parametrize("scoring", ["padded", "split"])
def test_they_cost_no_pass_and_keep_no_state(scoring):
    policy = tiny_policy(scoring=scoring)
    groups, ids, mask = case(policy)
    language_model = policy.adapter.language_model
    calls = []
    language_model.register_forward_hook(lambda *_: calls.append(1))
    hooks = [len(layer._forward_pre_hooks) for layer in language_model.layers]
    policy.measure(groups, ids, mask, wanted={*WANTED, ("image", "entropy")})
    assert len(calls) == 1
    assert [len(layer._forward_pre_hooks) for layer in language_model.layers] == hooks
    assert len(language_model._forward_hooks) == 1


def test_a_failed_pass_leaves_no_watch_behind():
    policy = tiny_policy()
    groups = policy.encode([problem()])
    ids = torch.full((2, 3), 10**6)
    with pytest.raises(IndexError):
        policy.measure(groups, ids, torch.ones_like(ids, dtype=torch.bool), wanted=WANTED)
    assert not policy.adapter.language_model._forward_hooks


def test_only_what_is_wanted_is_there():
    policy = tiny_policy()
    groups, ids, mask = case(policy)
    seen = policy.measure(groups, ids, mask, wanted={("image", "image_cosine")})["image"]
    assert seen.image_cosine is not None
    assert seen.image_cosine_layers is None
    assert seen.entropy is None


def test_a_view_has_its_own_cosines():
    policy = tiny_policy()
    groups, ids, mask = case(policy)
    wanted = {("image", "image_cosine"), ("masked", "image_cosine")}
    seen = policy.measure(groups, ids, mask, wanted=wanted)
    masked = [group.shown_in("masked")[0] for group in groups]
    alone = policy.measure(masked, ids, mask, wanted={("image", "image_cosine")})
    torch.testing.assert_close(
        seen["masked"].image_cosine, alone["image"].image_cosine, rtol=0, atol=1e-6
    )
    assert (seen["masked"].image_cosine - seen["image"].image_cosine).abs().max() > 1e-3


@pytest.mark.parametrize("lengths", [(1,) * 12, (0, 2, 1, 0, 0, 1, 3, 0, 1, 0, 0, 0)])
def test_short_and_empty_responses_are_read_like_others(lengths):
    split, padded = tiny_policy(scoring="split"), tiny_policy(scoring="padded")
    groups, ids, mask = case(split, lengths=lengths)
    one, other = (
        policy.measure(groups, ids, mask, wanted=WANTED)["image"] for policy in (split, padded)
    )
    torch.testing.assert_close(one.image_cosine, other.image_cosine, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        one.image_cosine_layers, other.image_cosine_layers, rtol=0, atol=1e-5
    )
