"""Attention over the prompt and over the own response, merged: exact, with gradient, without a mask."""

import pytest
import torch
from model_fixtures import tiny_policy
from scoring_cases import assert_equal_gradients, case, gradients, loss
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from papo.models import merged_attention
from papo.models.merged_attention import ResponseRows, _Merged, merged_response_attention
from papo.models.reader import PromptReader
from papo.models.scoring.merged_check import merged_is_exact

CPU = torch.device("cpu")


def naive_attention(query, key, value, prompt_key, prompt_value, lengths, scaling):
    """The definition: every response by itself, all its keys in one softmax."""
    outputs, start, per_group = [], 0, len(lengths) // prompt_key.shape[0]
    per_key = query.shape[1] // key.shape[1]
    for index, length in enumerate(lengths):
        rows = slice(start, start + length)
        prompt = [part[index // per_group].transpose(0, 1) for part in (prompt_key, prompt_value)]
        keys, values = (
            torch.cat([read, own[rows]]).repeat_interleave(per_key, dim=1)
            for read, own in zip(prompt, (key, value), strict=True)
        )
        scores = scaling * torch.einsum("qhc,khc->hqk", query[rows], keys)
        num_prompt = prompt_key.shape[2]
        seen = torch.ones(length, num_prompt + length, dtype=torch.bool).tril(num_prompt)
        weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        outputs.append(torch.einsum("hqk,khc->qhc", weights, values))
        start += length
    return torch.cat(outputs)


def random_inputs(
    lengths, *, num_groups, dtype, heads=4, key_heads=2, prompt_length=9, channels=16
):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape, dtype=dtype, generator=generator).requires_grad_()

    rows = sum(lengths)
    prompt = (num_groups, key_heads, prompt_length, channels)
    return (
        drawn(rows, heads, channels),
        *(drawn(rows, key_heads, channels) for _ in range(2)),
        *(drawn(*prompt) for _ in range(2)),
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize(
    ("lengths", "num_groups"),
    [([5, 1, 0, 7], 2), ([4, 4], 1), ([3, 3, 3, 3], 2), ([0, 0, 5, 2], 2), ([1], 1)],
)
def test_output_and_gradients_are_those_of_one_softmax(
    lengths, num_groups, heads, dtype, tolerance
):
    inputs = random_inputs(
        lengths, num_groups=num_groups, dtype=dtype, heads=heads[0], key_heads=heads[1]
    )
    rows = ResponseRows.of(torch.tensor(lengths), num_groups)
    got = merged_response_attention(*inputs, rows=rows, scaling=0.3)
    expected = naive_attention(*inputs, lengths, 0.3)
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)
    # Of the second loss the gradient is one number that is seen everywhere.
    for of in (loss, torch.sum):
        for one, other in zip(
            torch.autograd.grad(of(got), inputs, retain_graph=True),
            torch.autograd.grad(of(expected), inputs, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


class LargestTensor(TorchDispatchMode):
    """The most numbers that any tensor made on the way had."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.numel())
        return result


def test_neither_a_mask_nor_a_copy_of_the_prompts_keys_ever_lives():
    lengths = [3, 4, 2, 4, 1, 4]
    inputs = random_inputs(lengths, num_groups=1, dtype=torch.float32, prompt_length=500)
    rows = ResponseRows.of(torch.tensor(lengths), 1)
    watch = LargestTensor()
    with watch:
        merged_response_attention(*inputs, rows=rows, scaling=0.3).sum().backward()
    # A gradient of the prompt's keys is as large as they are; a copy for each response would be six times that.
    assert watch.numbers == inputs[3].numel()


class Context:
    """What autograd keeps between the passes."""

    def save_for_backward(self, *tensors):
        self.saved_tensors = tensors


def test_the_gpu_kernels_are_called_as_they_are_declared():
    # Tensors of shapes alone: what stands on their device is not computed, but the calls are checked.
    with FakeTensorMode(), torch.no_grad():

        def empty(*shape, dtype=torch.bfloat16):
            return torch.empty(*shape, dtype=dtype, device="cuda")

        places = empty(13, dtype=torch.long)
        rows = ResponseRows(
            num_groups=2,
            num_rollouts=4,
            longest_group=7,
            longest_response=7,
            in_groups=places,
            in_responses=places,
        )
        inputs = (*(empty(13, heads, 16) for heads in (4, 2, 2)), *(empty(2, 2, 9, 16),) * 2)
        context = Context()
        output = _Merged.forward(context, *inputs, rows, 0.3)
        found = _Merged.backward(context, output)
    assert (output.shape, output.dtype) == (inputs[0].shape, torch.bfloat16)
    assert [part.shape for part in found[:5]] == [part.shape for part in inputs]


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_kernels_here_are_exact(precision):
    assert merged_is_exact(CPU, precision, 16)


@pytest.mark.parametrize("which", ["_fused", "_fused_backward"])
def test_a_kernel_that_is_not_exact_is_noticed(monkeypatch, which):
    kernel = getattr(merged_attention, which)

    def wrong(*args):
        first, second, *rest = kernel(*args)
        return first, second * 1.2, *rest

    monkeypatch.setattr(merged_attention, which, wrong)
    assert not merged_is_exact.__wrapped__(CPU, torch.bfloat16, 16)


def test_a_device_without_the_kernel_is_not_asked_for_it():
    gpu = torch.device("cuda")
    assert not merged_is_exact(gpu, torch.float32, 128)
    assert not merged_is_exact(gpu, torch.bfloat16, 100)


@pytest.mark.parametrize(
    ("device", "precision", "is_exact", "expected"),
    [
        ("cuda", torch.bfloat16, True, "merged"),
        ("cuda", torch.bfloat16, False, "split"),
        ("cuda", torch.float32, None, "split"),
        ("cpu", torch.bfloat16, True, "split"),
    ],
)
def test_auto_merges_on_a_gpu_whose_kernels_were_seen_to_be_exact(
    monkeypatch, device, precision, is_exact, expected
):
    from papo.models.scoring import choice

    if is_exact is not None:
        monkeypatch.setattr(choice, "merged_is_exact", lambda *_: is_exact)
    policy = tiny_policy(scoring="auto")
    groups, _, mask = case(policy)
    monkeypatch.setattr(PromptReader, "device", torch.device(device))
    monkeypatch.setattr(PromptReader, "pass_precision", precision)
    assert policy.choose_backend(groups, mask, policy.reader) == expected


def test_merged_scoring_without_a_kernel_is_refused_with_the_key(monkeypatch):
    from papo.models.scoring import split

    monkeypatch.setattr(split, "has_fused_attention", lambda *_: False)
    policy = tiny_policy(scoring="merged")
    groups, ids, mask = case(policy)
    with pytest.raises(ValueError, match=r"model\.scoring=auto"):
        policy.score(groups, ids, mask)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernels_of_a_gpu_are_exact():
    for channels in (64, 128):
        assert merged_is_exact(torch.device("cuda", 0), torch.bfloat16, channels)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gradients_on_a_gpu_equal_the_padded_ones_within_bfloat16(family):
    results = {}
    for scoring in ("padded", "merged"):
        policy = tiny_policy(family, scoring=scoring, initializer_range=0.05).cuda()
        groups, ids, mask = case(policy)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logprobs = policy.score(groups, ids.cuda(), mask.cuda())["image"].logprobs
        results[scoring] = logprobs.detach(), gradients(policy, loss(logprobs))
    torch.testing.assert_close(results["merged"][0], results["padded"][0], rtol=0, atol=0.1)
    assert_equal_gradients(results["merged"][1], results["padded"][1], language=0.05, vision=0.1)
