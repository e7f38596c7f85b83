from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from papo.functional import token_statistics

BANNED = torch.tensor([2, 7])


def naive_statistics(hidden, masked_hidden, weight, targets, temperature, banned, softcap=None):
    """Dense log_softmax over the allowed columns, differentiated by autograd."""

    def logits(states):
        raw = states @ weight[allowed].T
        return (raw if softcap is None else softcap * torch.tanh(raw / softcap)) / temperature

    allowed = [i for i in range(weight.shape[0]) if banned is None or i not in banned.tolist()]
    column = {token: i for i, token in enumerate(allowed)}
    picked = torch.tensor([column[int(t)] for t in targets])
    log_p = torch.log_softmax(logits(hidden), dim=1)
    log_q = torch.log_softmax(logits(masked_hidden), dim=1)
    rows = torch.arange(len(targets))
    p, q = log_p.exp(), log_q.exp()
    return {
        "logprobs": log_p[rows, picked],
        "masked_logprobs": log_q[rows, picked],
        "entropy": -(p * log_p).sum(1),
        "masked_entropy": -(q * log_q).sum(1),
        "perception_kl": (p * (log_p - log_q)).sum(1),
    }


@pytest.fixture
def head():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    targets = torch.tensor([0, 1, 3, 4, 5, 6, 10])
    return (
        draw(7, 5).requires_grad_(),
        draw(7, 5).requires_grad_(),
        draw(11, 5).requires_grad_(),
        targets,
    )


@pytest.mark.parametrize("softcap", [None, 1.5])  # logits reach 6
@pytest.mark.parametrize("banned", [None, BANNED])
@pytest.mark.parametrize("chunk_size", [1, 3, 100])
@pytest.mark.parametrize(
    "field", ["logprobs", "masked_logprobs", "entropy", "masked_entropy", "perception_kl", "all"]
)
def test_values_and_gradients_match_the_dense_definition(head, banned, chunk_size, field, softcap):
    hidden, masked_hidden, weight, targets = head
    expected = naive_statistics(hidden, masked_hidden, weight, targets, 0.7, banned, softcap)
    got = token_statistics(
        hidden,
        weight,
        targets,
        temperature=0.7,
        banned_ids=banned,
        full_vocabulary=True,
        chunk_size=chunk_size,
        masked_hidden=masked_hidden,
        softcap=softcap,
    )
    fields = list(expected) if field == "all" else [field]
    row_weights = torch.linspace(-1.0, 2.0, len(targets), dtype=torch.float64)
    naive_sum = sum((expected[name] * row_weights * (i + 1)).sum() for i, name in enumerate(fields))
    our_sum = sum(
        (getattr(got, name) * row_weights * (i + 1)).sum() for i, name in enumerate(fields)
    )
    for name in fields:
        torch.testing.assert_close(getattr(got, name), expected[name], rtol=1e-12, atol=1e-13)
    leaves = (hidden, masked_hidden, weight)
    naive_grads = torch.autograd.grad(naive_sum, leaves, allow_unused=True)
    our_grads = torch.autograd.grad(our_sum, leaves, allow_unused=True)
    for ours, naive in zip(our_grads, naive_grads, strict=True):
        naive = torch.zeros_like(ours) if naive is None else naive
        torch.testing.assert_close(ours, naive, rtol=1e-10, atol=1e-13)


def test_one_view_has_no_masked_fields_and_sampled_statistics_no_entropy(head):
    hidden, masked_hidden, weight, targets = head
    one = token_statistics(
        hidden,
        weight,
        targets,
        temperature=1.0,
        banned_ids=None,
        full_vocabulary=True,
        chunk_size=4,
    )
    assert one.entropy is not None
    assert one.masked_logprobs is one.masked_entropy is one.perception_kl is None
    two = token_statistics(
        hidden,
        weight,
        targets,
        temperature=1.0,
        banned_ids=None,
        full_vocabulary=False,
        chunk_size=4,
        masked_hidden=masked_hidden,
    )
    assert two.masked_logprobs is not None
    assert two.entropy is two.masked_entropy is two.perception_kl is None


def test_banned_ids_never_leak_a_nan_and_receive_no_gradient(head):
    hidden, masked_hidden, weight, targets = head
    got = token_statistics(
        hidden,
        weight,
        targets,
        temperature=1.0,
        banned_ids=BANNED,
        full_vocabulary=True,
        chunk_size=3,
        masked_hidden=masked_hidden,
    )
    total = (
        got.logprobs.sum() + got.entropy.sum() + got.perception_kl.sum() + got.masked_entropy.sum()
    )
    grads = torch.autograd.grad(total, (hidden, masked_hidden, weight))
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert (grads[2][BANNED] == 0.0).all()


@pytest.mark.parametrize("full_vocabulary", [False, True])
def test_a_banned_target_is_impossible_and_teaches_its_embedding_nothing(head, full_vocabulary):
    hidden, _, weight, _ = head
    got = token_statistics(
        hidden,
        weight,
        torch.full((7,), 2),
        temperature=1.0,
        banned_ids=BANNED,
        full_vocabulary=full_vocabulary,
        chunk_size=3,
    )
    assert (got.logprobs == -torch.inf).all()
    (grad,) = torch.autograd.grad(got.logprobs.sum(), weight)
    assert torch.isfinite(grad).all()
    assert (grad[BANNED] == 0.0).all()


@pytest.mark.parametrize("banned", [None, BANNED])
def test_logprobs_are_the_same_with_and_without_the_full_vocabulary(head, banned):
    hidden, masked_hidden, weight, targets = head
    sampled, full = (
        token_statistics(
            hidden,
            weight,
            targets,
            temperature=0.7,
            banned_ids=banned,
            full_vocabulary=full_vocabulary,
            chunk_size=4,
            masked_hidden=masked_hidden,
        )
        for full_vocabulary in (False, True)
    )
    for name in ("logprobs", "masked_logprobs"):
        torch.testing.assert_close(
            getattr(sampled, name), getattr(full, name), rtol=1e-12, atol=1e-13
        )


def test_bfloat16_states_are_accumulated_in_float32(head):
    hidden, _, weight, targets = head
    narrow_hidden, narrow_weight = hidden.detach().bfloat16(), weight.detach().bfloat16()
    got = token_statistics(
        narrow_hidden,
        narrow_weight,
        targets,
        temperature=1.0,
        banned_ids=None,
        full_vocabulary=True,
        chunk_size=3,
    )
    wide = token_statistics(
        narrow_hidden.double(),
        narrow_weight.double(),
        targets,
        temperature=1.0,
        banned_ids=None,
        full_vocabulary=True,
        chunk_size=3,
    )
    assert got.logprobs.dtype == torch.float32
    assert wide.logprobs.dtype == torch.float64
    # bfloat16 logits would be wrong by about 1e-2.
    torch.testing.assert_close(got.logprobs, wide.logprobs.float(), rtol=0, atol=2e-6)
    torch.testing.assert_close(got.entropy, wide.entropy.float(), rtol=0, atol=2e-6)


def in_chunks_of_three(hidden, weight, targets, **settings):
    given = {"temperature": 1.0, "banned_ids": None, "full_vocabulary": False, "chunk_size": 3}
    return token_statistics(hidden, weight, targets, **{**given, **settings})


def test_autocast_narrows_what_is_multiplied_and_not_what_is_added(head):
    hidden, _, weight, targets = (t.detach() for t in head)

    def score(hidden, weight):
        return in_chunks_of_three(hidden, weight, targets).logprobs

    states = hidden.float().requires_grad_(), weight.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = score(*states)
    rounded = [state.detach().bfloat16().double().requires_grad_() for state in states]
    expected = score(*rounded)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, expected.float(), rtol=0, atol=2e-6)
    # Without the rounding it is another number.
    assert (inside - score(*states)).abs().max() > 1e-4
    inside.sum().backward()
    expected.sum().backward()
    for state, exact in zip(states, rounded, strict=True):
        assert state.grad.dtype == torch.float32
        torch.testing.assert_close(state.grad, exact.grad.float(), rtol=1e-5, atol=1e-5)


def test_no_rows_give_empty_statistics(head):
    _, _, weight, _ = head
    got = token_statistics(
        torch.zeros(0, 5, dtype=torch.float64),
        weight,
        torch.zeros(0, dtype=torch.long),
        temperature=1.0,
        banned_ids=None,
        full_vocabulary=True,
        chunk_size=3,
    )
    assert got.logprobs.shape == got.entropy.shape == (0,)


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor any operation returned."""

    numel = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_logits_of_the_whole_batch_never_exist():
    hidden = torch.randn(512, 8, requires_grad=True)
    weight = torch.randn(1000, 8, requires_grad=True)
    with LargestTensor() as largest:
        got = token_statistics(
            hidden,
            weight,
            torch.zeros(512, dtype=torch.long),
            temperature=1.0,
            banned_ids=None,
            full_vocabulary=True,
            chunk_size=32,
            masked_hidden=hidden * 0.5,
        )
        (got.logprobs.sum() + got.perception_kl.sum()).backward()
    assert largest.numel == 32 * 1000


class ShapesMade(TorchDispatchMode):
    """How many operations made a new matrix of each shape."""

    def __init__(self):
        super().__init__()
        self.products, self.matrices = Counter(), Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dim() == 2:
            name = operation.overloadpacket.__name__
            self.products[tuple(result.shape)] += name == "mm"
            inputs = {each.data_ptr() for each in args if isinstance(each, torch.Tensor)}
            self.matrices[tuple(result.shape)] += result.data_ptr() not in inputs
        return result


@pytest.mark.parametrize(
    ("two_views", "full_vocabulary", "softcap", "products"),
    # Three chunks forward and again backward; the last one not, where its probabilities were kept.
    [
        (False, False, None, 5),
        (False, True, None, 6),
        (False, False, 1.5, 6),
        (True, False, None, 9),
    ],
)
def test_the_chunk_that_was_read_last_is_not_read_again(
    head, two_views, full_vocabulary, softcap, products
):
    hidden, masked, weight, targets = head
    with ShapesMade() as made:
        got = in_chunks_of_three(
            hidden,
            weight,
            targets,
            temperature=0.7,
            banned_ids=BANNED,
            full_vocabulary=full_vocabulary,
            masked_hidden=masked if two_views else None,
            softcap=softcap,
        )
        got.logprobs.sum().backward()
    # Rows 0 to 3 and 3 to 6, and the last one.
    assert made.products[3, 11] + made.products[1, 11] == products


def test_log_probabilities_alone_take_one_matrix_a_chunk_each_way(head):
    hidden, _, weight, targets = head
    with ShapesMade() as made:
        in_chunks_of_three(hidden, weight, targets).logprobs.sum().backward()
    assert made.matrices[3, 11] == 4


def test_a_second_derivation_of_the_same_graph_is_the_first(head):
    hidden, _, weight, targets = head
    scored = in_chunks_of_three(hidden, weight, targets, temperature=0.7, banned_ids=BANNED)
    loss = scored.logprobs[1:2]
    first = torch.autograd.grad(loss.sum(), (hidden, weight), retain_graph=True)
    again = torch.autograd.grad(loss.sum(), (hidden, weight))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)


def test_a_temperature_of_zero_names_its_key(head):
    hidden, _, weight, targets = head
    with pytest.raises(ValueError, match=r"rollout\.temperature"):
        token_statistics(
            hidden,
            weight,
            targets,
            temperature=0.0,
            banned_ids=None,
            full_vocabulary=False,
            chunk_size=3,
        )


def test_a_chunk_of_no_rows_is_refused(head):
    hidden, _, weight, targets = head
    with pytest.raises(ValueError, match="chunk_size"):
        token_statistics(
            hidden,
            weight,
            targets,
            temperature=1.0,
            banned_ids=None,
            full_vocabulary=False,
            chunk_size=0,
        )
