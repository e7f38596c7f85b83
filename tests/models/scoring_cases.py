"""Cases, references and a float64 world for the tests of the scoring backends."""

import sys

import torch
from model_fixtures import mixed_problems, noise_image, problem, with_noise_as_masked_view

from papo.models.families.qwen_vl import grid_thw

NUM_RESPONSES = 3


def case(policy, lengths=(5, 1, 9, 2, 7, 4, 9, 3, 6, 1, 8, 2)):
    """Four groups; the first and last have prompts of one length but different shapes; ragged responses."""
    problems = [*mixed_problems(), problem(images=(noise_image(180, 30, 7),), id="again")]
    groups = with_noise_as_masked_view(policy.encode(problems))
    assert groups[0].prompt_ids.shape == groups[3].prompt_ids.shape
    assert groups[0].next_position != groups[3].next_position
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return groups, torch.randint(0, 256, mask.shape, generator=generator), mask


def plain_logprobs(policy, group, ids):
    """log-probabilities of one response by one plain forward of the Hugging Face model."""
    sequence = torch.cat([group.prompt_ids, ids])[None]
    inputs = {}
    if group.patches is not None:
        inputs = {
            "pixel_values": group.patches,
            "image_grid_thw": grid_thw(group.pictures),
            "mm_token_type_ids": (sequence == policy.adapter.image_token_id).long(),
        }
    policy.model.model.rope_deltas = None  # cached state of an earlier call
    logits = policy.model(input_ids=sequence, **inputs).logits[
        0, group.prompt_ids.shape[0] - 1 : -1
    ]
    logits = logits / policy.temperature
    logits[:, list(policy.banned_token_ids)] = -torch.inf
    return logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]


def all_plain_logprobs(policy, groups, ids, mask):
    """The oracle of the oracle: every response by itself, padded with zeros."""
    num_responses = ids.shape[0] // len(groups)
    rows = torch.zeros(ids.shape, dtype=policy.adapter.head_weight.dtype)
    return torch.stack(
        [
            torch.cat(
                [
                    plain_logprobs(policy, groups[row // num_responses], ids[row][mask[row]]),
                    rows[row][~mask[row]],
                ]
            )
            for row in range(ids.shape[0])
        ]
    )


def loss(logprobs):
    """Weighs every token differently, so that no two of them can be swapped unnoticed."""
    weights = torch.linspace(-1, 1, logprobs.numel(), dtype=logprobs.dtype)
    return (logprobs * weights.reshape(logprobs.shape)).sum()


def gradients(policy, value):
    policy.zero_grad()
    value.backward()
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


def assert_equal_gradients(got, expected, *, language, vision):
    """Largest deviation within `language` and `vision` times the largest gradient of each part."""
    assert got.keys() == expected.keys()
    for is_vision, tolerance in ((False, language), (True, vision)):
        names = [n for n in expected if (".visual." in n) == is_vision]
        largest = max(float(expected[n].abs().max()) for n in names)
        assert largest > 0
        for name in names:
            deviation = float((got[name] - expected[name]).abs().max())
            assert deviation <= tolerance * largest, f"{name}: {deviation / largest}"


def in_true_float64(policy, monkeypatch):
    """The policy in float64 throughout: the norms and rotations of transformers compute in float32."""
    policy.double()
    if policy.model.config.model_type == "qwen3_5":
        # It computes states, norms and rotations in float32, by these names.
        for name in ("float32", "float"):
            monkeypatch.setattr(torch, name, torch.float64)
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
        for part, method in (
            ("language_model.rotary_emb", "default"),
            ("visual.rotary_pos_emb", "axial"),
        ):
            rotary = policy.model.model.get_submodule(part)
            rotary.inv_freq, _ = getattr(rotary, f"compute_{method}_rope_parameters")(rotary.config)
        return policy
    module = sys.modules[type(policy.model).__module__]

    def norm(self, hidden):
        variance = hidden.pow(2).mean(-1, keepdim=True)
        return self.weight * (hidden * torch.rsqrt(variance + self.variance_epsilon))

    def text_rotation(self, x, position_ids):
        angles = position_ids.expand(3, -1, -1)[..., None].double() * self.inv_freq.double()
        return tuple(self.recomposition_frequencies(f(angles)) for f in (torch.cos, torch.sin))

    def vision_rotation(self, x, position_ids):
        angles = position_ids[..., None].double() * self.inv_freq.double()
        return tuple(self.recomposition_frequencies(f(angles)) for f in (torch.cos, torch.sin))

    def rotate(q, k, cos, sin):
        cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
        return tuple(x * cos + module.rotate_half(x) * sin for x in (q, k))

    rope_text = "Qwen2_5_VLRotaryEmbedding", "Qwen3VLTextRotaryEmbedding"
    rope_vision = "Qwen2_5_VLVisionRotaryEmbedding", "Qwen3VLVisionRotaryEmbedding"
    for name in ("Qwen2_5_VLRMSNorm", "Qwen3VLTextRMSNorm", *rope_text, *rope_vision):
        if hasattr(module, name):
            new = (
                norm if "Norm" in name else text_rotation if name in rope_text else vision_rotation
            )
            monkeypatch.setattr(getattr(module, name), "forward", new)
    monkeypatch.setattr(module, "apply_rotary_pos_emb_vision", rotate)
    return policy
