"""Log-probabilities, exact entropies and the exact perception KL straight from hidden states.

The logits of a minibatch, (tokens x vocabulary), are the largest tensor of the whole training step.
Here they exist for `chunk_size` rows at a time and are recomputed in the backward pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenStatistics:
    """What the output head says of each row; float32 (float64 for float64 inputs), nats.

    Attributes:
        logprobs: log p(target), p the distribution of the full-image view.
        masked_logprobs: log q(target), q the distribution of the masked-image view.
        entropy: H[p] over the whole vocabulary.
        masked_entropy: H[q] over the whole vocabulary.
        perception_kl: KL(p || q) over the whole vocabulary.
    """

    logprobs: Float[Tensor, " row"]
    masked_logprobs: Float[Tensor, " row"] | None = None
    entropy: Float[Tensor, " row"] | None = None
    masked_entropy: Float[Tensor, " row"] | None = None
    perception_kl: Float[Tensor, " row"] | None = None


def token_statistics(
    hidden: Float[Tensor, "row hidden"],
    weight: Float[Tensor, "vocab hidden"],
    target_ids: Int[Tensor, " row"],
    *,
    temperature: float,
    banned_ids: Int[Tensor, " banned"] | None,
    full_vocabulary: bool,
    chunk_size: int,
    masked_hidden: Float[Tensor, "row hidden"] | None = None,
) -> TokenStatistics:
    """Returns log p(target) per row, for one view or two, and on request the exact statistics.

    p = softmax(hidden @ weight.T / temperature) over the vocabulary without `banned_ids`. Every
    returned field carries gradient to `hidden`, `masked_hidden` and `weight`; the gradients are
    hand-written (second derivatives are not available).

    Args:
        hidden: the state that predicts each target, full image.
        weight: the output embedding; no bias, as in the Qwen-VL families.
        target_ids: the sampled tokens.
        temperature: the sampling temperature; scoring must divide by the same one.
        banned_ids: tokens that cannot be sampled; their probability is exactly 0 and they add
            exactly 0 to entropies and KL. A banned target has log-probability -inf.
        full_vocabulary: also return the entropies and, given both views, the KL.
        chunk_size: rows whose logits exist at once; changes memory, never the result's meaning.
        masked_hidden: the same rows scored against the masked image.

    Raises:
        ValueError: temperature or chunk_size is not positive.
    """
    if not temperature > 0.0:
        raise ValueError(
            f"scoring divides the logits by the temperature, which must be positive; got "
            f"temperature={temperature}. Set rollout.temperature above 0 (official PAPO: 1.0)."
        )
    if chunk_size < 1:
        raise ValueError(
            f"chunk_size counts rows of logits and must be at least 1; got {chunk_size}"
        )
    # The Function works in one precision; inside autocast the matmul would silently lose it.
    with torch.autocast(hidden.device.type, enabled=False):
        outputs = _HeadStatistics.apply(
            hidden,
            masked_hidden,
            weight,
            target_ids,
            banned_ids,
            temperature,
            full_vocabulary,
            chunk_size,
        )
    logprobs, masked_logprobs, entropy, masked_entropy, perception_kl = outputs
    return TokenStatistics(
        logprobs=logprobs,
        masked_logprobs=masked_logprobs,
        entropy=entropy,
        masked_entropy=masked_entropy,
        perception_kl=perception_kl,
    )


def _working_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """float64 stays float64; everything else accumulates in float32."""
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    return dtype if dtype == torch.float64 else torch.float32


def _wide_operand(operand: Tensor, other: Tensor, dtype: torch.dtype) -> Tensor:
    """Widens a matmul operand to `dtype`, unless the device multiplies it narrow and adds wide."""
    narrow_product = operand.is_cuda and operand.dtype == other.dtype != dtype
    if narrow_product and hasattr(torch.ops.aten.mm, "dtype"):
        return operand
    return operand.to(dtype)


def _matmul(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left @ right with sums in `dtype`."""
    if left.dtype == right.dtype == dtype:
        return left @ right
    if left.dtype == right.dtype and left.is_cuda:
        # Products of bfloat16 numbers are exact in float32, so only the sums need the width.
        return torch.mm(left, right, out_dtype=dtype)
    return left.to(dtype) @ right.to(dtype)


def _chunks(num_rows: int, chunk_size: int) -> Iterator[slice]:
    for start in range(0, num_rows, chunk_size):
        yield slice(start, min(start + chunk_size, num_rows))


def _log_softmax(
    hidden: Tensor,
    weight: Tensor,
    banned_ids: Tensor | None,
    temperature: float,
    dtype: torch.dtype,
) -> Tensor:
    """Log-probabilities [row vocab]; -inf at banned ids."""
    logits = _matmul(hidden, weight.t(), dtype)
    logits /= temperature
    if banned_ids is not None:
        logits.index_fill_(1, banned_ids, -torch.inf)
    return torch.log_softmax(logits, dim=1)


def _pick(log_p: Tensor, targets: Tensor) -> Tensor:
    return log_p.gather(1, targets[:, None]).squeeze(1)


def _finite(log_p: Tensor, banned_ids: Tensor | None) -> Tensor:
    """Replaces the -inf of banned ids by 0 in place: 0 * -inf is NaN, 0 * 0 is the limit."""
    return log_p if banned_ids is None else log_p.index_fill_(1, banned_ids, 0.0)


def _log_p_gradient(
    p: Tensor,
    log_p: Tensor,
    targets: Tensor,
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
) -> Tensor:
    """d/dz of grad_logprob * log p(target) + grad_entropy * H[p], z the tempered logits.

    d log p(t) / dz_j = 1[j=t] - p_j;  dH/dz_j = -p_j (log p_j + H). `log_p` is finite at banned ids.
    """
    if grad_entropy is not None:
        entropy = -(p * log_p).sum(1, keepdim=True)
        grad = (log_p + entropy).mul_(p).mul_(-grad_entropy[:, None])
    else:
        grad = torch.zeros_like(p)
    if grad_logprob is not None:
        grad.addcmul_(p, grad_logprob[:, None].expand_as(p), value=-1.0)
        grad.scatter_add_(1, targets[:, None], grad_logprob[:, None])
    return grad


class _HeadStatistics(torch.autograd.Function):
    """Saves the inputs only; forward and backward each walk over the rows in chunks."""

    @staticmethod
    def forward(
        ctx,
        hidden,
        masked_hidden,
        weight,
        targets,
        banned_ids,
        temperature,
        full_vocabulary,
        chunk_size,
    ):
        ctx.save_for_backward(hidden, masked_hidden, weight, targets, banned_ids)
        ctx.settings = (temperature, full_vocabulary, chunk_size)
        ctx.set_materialize_grads(False)
        dtype = _working_dtype(hidden, weight)
        wide_weight = _wide_operand(weight, hidden, dtype)
        two_views = masked_hidden is not None
        exact_two_views = two_views and full_vocabulary
        logprobs, masked_logprobs, entropy, masked_entropy, perception_kl = (
            hidden.new_empty(len(targets), dtype=dtype) for _ in range(5)
        )
        for rows in _chunks(len(targets), chunk_size):
            log_p = _log_softmax(hidden[rows], wide_weight, banned_ids, temperature, dtype)
            logprobs[rows] = _pick(log_p, targets[rows])
            if full_vocabulary:
                p = log_p.exp()
                log_p = _finite(log_p, banned_ids)
                entropy[rows] = -(p * log_p).sum(1)
            if not two_views:
                continue
            log_q = _log_softmax(masked_hidden[rows], wide_weight, banned_ids, temperature, dtype)
            masked_logprobs[rows] = _pick(log_q, targets[rows])
            if full_vocabulary:
                q = log_q.exp()
                log_q = _finite(log_q, banned_ids)
                masked_entropy[rows] = -q.mul_(log_q).sum(1)
                perception_kl[rows] = p.mul_(log_p.sub_(log_q)).sum(1)
        return (
            logprobs,
            masked_logprobs if two_views else None,
            entropy if full_vocabulary else None,
            masked_entropy if exact_two_views else None,
            perception_kl if exact_two_views else None,
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        hidden, masked_hidden, weight, targets, banned_ids = ctx.saved_tensors
        with torch.autocast(hidden.device.type, enabled=False):
            return _backward(ctx, hidden, masked_hidden, weight, targets, banned_ids, grads)


def _backward(ctx, hidden, masked_hidden, weight, targets, banned_ids, grads):
    temperature, _, chunk_size = ctx.settings
    needs_hidden, needs_masked, needs_weight = ctx.needs_input_grad[:3]
    dtype = _working_dtype(hidden, weight)
    wide_weight = _wide_operand(weight, hidden, dtype)
    grad_hidden = torch.zeros_like(hidden) if needs_hidden else None
    grad_masked = torch.zeros_like(masked_hidden) if needs_masked else None
    grad_weight = torch.zeros_like(weight, dtype=dtype) if needs_weight else None
    reads_kl = grads[4] is not None
    reads_p = grads[0] is not None or grads[2] is not None or reads_kl
    reads_q = grads[1] is not None or grads[3] is not None or reads_kl

    def send(grad_logits, state, grad_state, rows):
        """Carries one chunk's gradient from the tempered logits to the state and the weight."""
        grad_logits /= temperature
        if banned_ids is not None:
            grad_logits.index_fill_(1, banned_ids, 0.0)
        grad_logits = grad_logits.to(wide_weight.dtype)
        if grad_state is not None:
            grad_state[rows] = _matmul(grad_logits, wide_weight, dtype).to(grad_state.dtype)
        if grad_weight is not None:
            grad_weight.add_(_matmul(grad_logits.t(), state[rows], dtype))

    for rows in _chunks(len(targets), chunk_size):
        chunk_grads = (None if grad is None else grad[rows] for grad in grads)
        grad_logprob, grad_masked_logprob, grad_entropy, grad_masked_entropy, grad_kl = chunk_grads
        if reads_p:
            log_p = _log_softmax(hidden[rows], wide_weight, banned_ids, temperature, dtype)
            p = log_p.exp()
            log_p = _finite(log_p, banned_ids)
        if reads_q:
            log_q = _log_softmax(masked_hidden[rows], wide_weight, banned_ids, temperature, dtype)
            q = log_q.exp()
            log_q = _finite(log_q, banned_ids)
        if reads_q and (needs_masked or needs_weight):
            grad = _log_p_gradient(
                q, log_q, targets[rows], grad_masked_logprob, grad_masked_entropy
            )
            if grad_kl is not None:  # dKL/dz_q = q - p
                grad.addcmul_(q.sub_(p), grad_kl[:, None].expand_as(q))
            send(grad, masked_hidden, grad_masked, rows)
        if reads_p and (needs_hidden or needs_weight):
            grad = _log_p_gradient(p, log_p, targets[rows], grad_logprob, grad_entropy)
            if grad_kl is not None:  # dKL/dz_p = p (log p - log q - KL)
                log_ratio = log_p.sub_(log_q)
                kl = (p * log_ratio).sum(1, keepdim=True)
                grad.addcmul_(log_ratio.sub_(kl).mul_(p), grad_kl[:, None].expand_as(p))
            send(grad, hidden, grad_hidden, rows)
    grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
    return grad_hidden, grad_masked, grad_weight, None, None, None, None, None
