"""What a model family must do, a function each; its first line is its row of the table in docs/models.md.

A function is called with the name of the family and a folder of its own. `EXCEPT` has what a family does not do,
and why: the table says that instead.
"""

from dataclasses import replace

import torch
from exact import in_float64
from model_fixtures import noise_image, problem, tiny_policy
from PIL import Image
from plain_families import PLAIN, plain_logits
from torch.nn.functional import pad
from transformers import AutoModelForImageTextToText

from papo.evaluation.probe.attention import heat_map, measure_attention
from papo.masking import BlankMask, RandomPatchMask, SemanticMask, black_token_fraction
from papo.models import load_policy
from papo.rollout import SharedPrefillSampler
from papo.types import derive_seeds
from papo.views.masked import hide

BACKENDS = ("padded", "twopass", "split", "merged")
UNPACKED = ("gemma3", "gemma4")
"""Families whose prompts and responses do not fit one packed row."""
LENGTHS = (5, 1, 9, 2, 7, 4, 9, 3)
EXCEPT: dict[tuple[str, str], str] = {}
"""(family, property): why the family is offered without it."""


def policy_of(family, **settings):
    scoring = "twopass" if family in UNPACKED else "split"
    sizes = {"max_pixels": 128 * 128, "scoring": scoring, **dict(PLAIN[family].sizes)}
    return tiny_policy(family, **{**sizes, **settings})


def backends(family):
    """Those that the family can be scored with."""
    return BACKENDS[:2] if family in UNPACKED else BACKENDS


def pictures(*sizes):
    return tuple(noise_image(*size, seed) for seed, size in enumerate(sizes))


def problems():
    """One picture, two, none, and one again, of another shape."""
    return [
        problem(images=pictures((60, 90)), id="one"),
        problem("<image> and <image>? Ω", images=pictures((60, 60), (100, 30)), id="two"),
        problem("no image at all", images=(), id="text"),
        problem(images=pictures((180, 30)), id="again"),
    ]


def half_hidden(policy, group):
    """The prompt with another view, in which half of every picture is black."""
    if group.patches is None:
        return group
    mask = RandomPatchMask(ratio=0.5, grid="token", raw_square_pixels=14, seed=0)
    return replace(group, views={"masked": (hide(group, mask, policy, seed=3),)})


def case(policy):
    """Groups of two responses each, of ragged lengths, with a second view."""
    groups = [half_hidden(policy, group) for group in policy.encode(problems())]
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(0, 256, mask.shape, generator=torch.Generator().manual_seed(0))
    return groups, ids, mask


def plain_scores(policy, groups, ids, mask, view="image"):
    """log pi of every token, the entropy, and the KL from the whole picture; a plain pass per response."""
    found = []
    for row in range(ids.shape[0]):
        group = groups[row // (ids.shape[0] // len(groups))]
        response = ids[row][mask[row]]
        log_p = plain_logits(policy, group, response)
        log_q = (
            log_p if view == "image" else plain_logits(policy, group.shown_in(view)[0], response)
        )
        p, q = log_p.exp(), log_q.exp()
        finite = log_p.masked_fill(p == 0, 0.0), log_q.masked_fill(q == 0, 0.0)
        kl = (p * (finite[0] - finite[1])).sum(-1)
        entropy = -(q * finite[1]).sum(-1)
        found.append((log_q.gather(1, response[:, None])[:, 0], entropy, kl))
    return [torch.cat(each) for each in zip(*found, strict=True)]


def weighed(values):
    """A loss that weighs every token differently, so that no two can be swapped unnoticed."""
    return (values * torch.linspace(-1, 1, values.numel(), dtype=values.dtype)).sum()


def gradients(policy, loss):
    policy.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


def assert_near(got, expected, tolerance):
    assert got.keys() == expected.keys()
    largest = max(float(each.abs().max()) for each in expected.values())
    for name, each in expected.items():
        assert float((got[name] - each).abs().max()) <= tolerance * largest, name


def image_logprobs(policy, groups, ids, mask):
    return policy.score(groups, ids, mask)["image"].logprobs[mask]


def deviation(policy, groups, ids, mask, broken):
    """How far the scores of broken prompts are from the right ones."""
    with torch.no_grad():
        right = plain_scores(policy, groups, ids, mask)[0]
        return float((image_logprobs(policy, broken, ids, mask) - right).abs().max())


def prompts_and_pixels_are_the_processors(family, folder):
    """Prompt ids and pixels equal those of the Hugging Face processor"""
    policy, plain = policy_of(family), PLAIN[family]
    processor = plain.processor(policy)
    for each, group in zip(problems(), policy.encode(problems()), strict=True):
        text = policy.encoder.render(each)
        images = {"images": list(each.images)} if each.images else {}
        expected = processor(text=[text], return_tensors="pt", **images)
        assert torch.equal(group.prompt_ids, expected["input_ids"][0])
        assert policy.prompt_length(each) == group.prompt_ids.shape[0]
        if each.images:
            assert policy.encoder.layouts(each.images) == group.pictures
            for name, value in plain.pixels(group).items():
                assert torch.equal(value, expected[name]), name


def scores_are_those_of_a_plain_pass(family, folder):
    """Log-probabilities equal a plain forward pass, float32, every backend (1e-5)"""
    policy = policy_of(family, temperature=0.7)
    groups, ids, mask = case(policy)
    with torch.no_grad():
        expected = plain_scores(policy, groups, ids, mask)[0]
        for scoring in backends(family):
            policy.choose_backend.scoring = scoring
            got = policy.score(groups, ids, mask)["image"].logprobs
            assert (got[~mask] == 0).all()
            torch.testing.assert_close(got[mask], expected, rtol=0, atol=1e-5)


def gradients_are_those_of_a_plain_pass(family, folder):
    """The same in float64, with gradients, entropies and the exact KL to a masked view (1e-12, gradients 1e-10)"""
    with in_float64(policy_of(family)) as policy:
        groups, ids, mask = case(policy)
        names = "logprobs", "entropy", "kl_from_image"
        expected = [
            plain_scores(policy, groups, ids, mask)[0],
            *plain_scores(policy, groups, ids, mask, "masked"),
        ]
        of_plain = gradients(policy, sum(map(weighed, expected)))
        for scoring in backends(family):
            policy.choose_backend.scoring = scoring
            scores = policy.score(
                groups, ids, mask, views=("image", "masked"), full_vocabulary=True
            )
            got = [scores["image"].logprobs[mask]]
            got += [getattr(scores["masked"], name)[mask] for name in names]
            for one, other in zip(got, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
            assert_near(gradients(policy, sum(map(weighed, got))), of_plain, 1e-10)


def prompts_do_not_disturb_one_another(family, folder):
    """Several pictures, one and none in a batch: a prompt's scores are those that it has alone"""
    policy = policy_of(family)
    groups, ids, mask = case(policy)
    with torch.no_grad():
        together = policy.score(groups, ids, mask)["image"].logprobs
        for index, group in enumerate(groups):
            rows = slice(2 * index, 2 * index + 2)
            alone = policy.score([group], ids[rows], mask[rows])["image"].logprobs
            torch.testing.assert_close(alone, together[rows], rtol=0, atol=1e-5)


def sampled_are_scored(family, folder):
    """Log-probabilities of sampled tokens equal those that are scored"""
    policy = policy_of(family)
    groups = policy.encode(problems())
    sampler = SharedPrefillSampler(
        policy=policy, temperature=1.0, top_p=1.0, top_k=None, max_response_tokens=8, max_rows=64
    )
    drawn = sampler.sample(groups, 3, derive_seeds(1, len(groups)))
    with torch.no_grad():
        scored = policy.score(groups, drawn.ids, drawn.mask)["image"].logprobs
    torch.testing.assert_close(drawn.logprobs, scored, rtol=0, atol=1e-5)
    assert not torch.isin(drawn.ids[drawn.mask], torch.tensor(policy.banned_token_ids)).any()


def masks_hide(family, folder):
    """Masks by patch and by token hide what they say, in every tile that shows it"""
    policy = policy_of(family)
    [group] = policy.encode([problem(images=pictures((168, 56)))])
    [picture] = group.pictures
    black = policy.process_images([Image.new("RGB", (168, 56))])[0]
    assert (
        black_token_fraction(hide(group, BlankMask(), policy, seed=0), policy.process_images) == 1
    )
    for grid, cells in (("patch", 1), ("token", picture.patches_per_token)):
        mask = RandomPatchMask(ratio=0.5, grid=grid, raw_square_pixels=14, seed=0)
        masked = hide(group, mask, policy, seed=7)
        hidden = (masked.patches == black).all(dim=1)[: picture.num_first]
        assert (hidden.view(-1, cells) == hidden.view(-1, cells)[:, :1]).all()
        assert 0.2 < float(hidden.float().mean()) < 0.8
        kept = masked.patches[: picture.num_first][~hidden]
        assert torch.equal(kept, group.patches[: picture.num_first][~hidden])
    # What lies behind the black right half is another picture: nobody can tell.
    columns = torch.arange(picture.grid[1]).expand(picture.grid).float()
    salient = pad(picture.in_rows(columns), (0, picture.num_patches - picture.num_first))
    mask = SemanticMask(ratio=0.5, saliency=lambda _: salient)
    image = group.problem.images[0].copy()
    image.paste((9, 99, 200), (126, 0, 168, 56))
    [other] = policy.encode([problem(images=(image,))])
    assert not torch.equal(group.patches, other.patches)
    seen = [hide(each, mask, policy, seed=0).patches for each in (group, other)]
    assert torch.equal(*seen)


def recomputed_activations_change_nothing(family, folder):
    """Gradient checkpointing gives the same scores and gradients"""
    found = []
    for scoring in ("padded", *(each for each in backends(family) if each != "twopass")):
        policy = policy_of(family, scoring=scoring, gradient_checkpointing=bool(found)).train()
        scores = image_logprobs(policy, *case(policy))
        found.append((scores.detach(), gradients(policy, weighed(scores))))
    for scores, of_scores in found[1:]:
        torch.testing.assert_close(scores, found[0][0], rtol=0, atol=1e-5)
        assert_near(of_scores, found[0][1], 2e-5)


def adapters_are_trained_alone(family, folder):
    """LoRA on the language model and the tower: adapters alone are trained, and off they are the model before"""
    part = {"r": 4, "alpha": 8}
    lora = {
        "language": {**part, "targets": ["q_proj", "down_proj"]},
        "vision": {**part, "targets": list(PLAIN[family].lora)},
    }
    torch.manual_seed(0)  # of the adapters
    plain, policy = policy_of(family), policy_of(family, lora=lora)
    groups, ids, mask = case(policy)
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=0.1)
    found = gradients(policy, weighed(image_logprobs(policy, groups, ids, mask)))
    assert found
    assert all("lora_" in name for name in found)
    optimizer.step()
    with torch.no_grad():
        before = image_logprobs(plain, groups, ids, mask)
        trained = image_logprobs(policy, groups, ids, mask)
        with policy.without_adapters():
            off = image_logprobs(policy, groups, ids, mask)
    assert torch.equal(off, before)
    assert float((trained - before).abs().max()) > 1e-4
    policy.save_pretrained(folder)
    loaded = AutoModelForImageTextToText.from_pretrained(folder).eval()
    policy.model, policy.adapter.model = loaded, loaded
    with torch.no_grad():
        merged = plain_scores(policy, groups, ids, mask)[0]
    torch.testing.assert_close(merged, trained, rtol=0, atol=2e-5)


def a_frozen_tower_is_asked_once(family, folder):
    """A frozen tower has no gradient and reads each picture once; the rest trains as before"""
    policy, whole = policy_of(family, freeze_vision=True), policy_of(family)
    groups, ids, mask = case(policy)
    calls = []
    policy.adapter.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        found = gradients(policy, weighed(image_logprobs(policy, groups, ids, mask)))
    expected = gradients(whole, weighed(image_logprobs(whole, groups, ids, mask)))
    tower = {id(p) for p in whole.adapter.parts.vision_parameters(whole.model)}
    of_tower = {name for name, p in whole.named_parameters() if id(p) in tower}
    assert calls == [1]
    assert of_tower
    assert_near(found, {n: g for n, g in expected.items() if n not in of_tower}, 1e-5)


def a_frozen_language_model_trains_the_tower(family, folder):
    """With the language model frozen the tower's gradient is the same"""
    policy = policy_of(family)
    groups, ids, mask = case(policy)
    expected = gradients(policy, weighed(image_logprobs(policy, groups, ids, mask)))
    policy.adapter.language_model.requires_grad_(False)
    policy.adapter.head_weight.requires_grad_(False)
    found = gradients(policy, weighed(image_logprobs(policy, groups, ids, mask)))
    assert found
    assert_near(found, {name: expected[name] for name in found}, 1e-5)


def an_export_loads(family, folder):
    """An export loads in Hugging Face and here, with the same scores"""
    policy = policy_of(family)
    groups, ids, mask = case(policy)
    with torch.no_grad():
        expected = image_logprobs(policy, groups, ids, mask)
    policy.save_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    loaded = load_policy(
        path=str(folder), hub_id=None, revision=None, dtype="float32", attn_implementation="sdpa",
        min_pixels=None, max_pixels=None, gradient_checkpointing=False, freeze_vision=False,
        temperature=1.0, scoring="auto", head_chunk_size=16, trust_remote_code=False,
    )  # fmt: skip
    assert loaded.end_token_ids == policy.end_token_ids
    again, ids, mask = case(loaded)
    assert all(
        torch.equal(one.prompt_ids, two.prompt_ids) for one, two in zip(groups, again, strict=True)
    )
    with torch.no_grad():
        torch.testing.assert_close(
            image_logprobs(loaded, again, ids, mask), expected, rtol=0, atol=1e-5
        )
        policy.model = model
        torch.testing.assert_close(
            plain_scores(policy, groups, ids, mask)[0], expected, rtol=0, atol=1e-5
        )


def attention_is_the_models_own(family, folder):
    """Attention on a picture equals the model's own weights, and its map covers the picture"""
    policy = policy_of(family)
    [group] = policy.encode([problem("<image>", images=pictures((168, 56)))])
    ids = torch.tensor([5, 6, 7])
    found = measure_attention(policy, group, ids)
    policy.model.set_attn_implementation("eager")
    sequence = torch.cat([group.prompt_ids, ids])[None]
    inputs = PLAIN[family].inputs(policy, group, sequence)
    with torch.no_grad():
        own = policy.model(input_ids=sequence, output_attentions=True, **inputs).attentions
    slots = sequence[0] == policy.adapter.image_token_id
    assert len(found) == len(own)
    for layer, weights in zip(found, own, strict=True):
        rows = weights[0].mean(dim=0)[group.prompt_ids.shape[0] - 1 : -1, slots]
        torch.testing.assert_close(layer.heat, rows.mean(dim=0), rtol=0, atol=1e-6)
        over = heat_map(layer.heat, group.pictures[0])
        assert over.shape == group.pictures[0].token_grid
        torch.testing.assert_close(float(over.sum()), layer.share)


def operations_are_counted(family, folder):
    """The counted operations of the vision tower are those that torch counts"""
    from torch.utils.flop_counter import FlopCounterMode

    policy = policy_of(family)
    [group] = policy.encode([problem(images=pictures((168, 56)))])
    policy.model.set_attn_implementation("eager")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        policy.adapter.vision_features(group.patches, group.pictures)
    config, [picture] = policy.model.config, group.pictures
    counted = policy.adapter.vision_flops(config, picture)
    # Attention is counted for pairs that may look at one another, which eager attention multiplies as well.
    assert abs(counter.get_total_flops() / counted - 1) < 0.02


def wrong_positions_are_seen(family, folder):
    """Negative control: positions off by one change a score"""
    policy = policy_of(family)
    groups, ids, mask = case(policy)
    off = [replace(each, next_position=each.next_position + 1) for each in groups]
    assert deviation(policy, groups, ids, mask, off) > 1e-3
    assert deviation(policy, groups, ids, mask, groups) < 1e-5


def swapped_pictures_are_seen(family, folder):
    """Negative control: the pictures of a prompt in another order change a score"""
    policy = policy_of(family)
    two = pictures((60, 60), (60, 60))
    groups = policy.encode([problem("<image> and <image>?", images=two)])
    swapped = policy.encode([problem("<image> and <image>?", images=two[::-1])])
    _, ids, mask = case(policy)
    assert deviation(policy, groups, ids[:2], mask[:2], swapped) > 1e-3


def shifted_tiles_are_seen(family, folder):
    """Negative control: patches that lie elsewhere in the picture, or in another tile, change a score"""
    policy = policy_of(family)
    groups = policy.encode([problem(images=pictures((168, 56)))])
    _, ids, mask = case(policy)
    shifted = [replace(groups[0], patches=groups[0].patches.roll(4, dims=0))]
    assert deviation(policy, groups, ids[:2], mask[:2], shifted) > 1e-3


PROPERTIES = {
    each.__name__: each
    for each in (
        prompts_and_pixels_are_the_processors,
        scores_are_those_of_a_plain_pass,
        gradients_are_those_of_a_plain_pass,
        prompts_do_not_disturb_one_another,
        sampled_are_scored,
        masks_hide,
        recomputed_activations_change_nothing,
        adapters_are_trained_alone,
        a_frozen_tower_is_asked_once,
        a_frozen_language_model_trains_the_tower,
        an_export_loads,
        attention_is_the_models_own,
        operations_are_counted,
        wrong_positions_are_seen,
        swapped_pictures_are_seen,
        shifted_tiles_are_seen,
    )
}
