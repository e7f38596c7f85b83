"""Log-probabilities, exact entropies and the exact perception KL straight from hidden states.

The logits of a minibatch, (tokens x vocabulary), are the largest tensor of the whole training step.
Here they exist for `chunk_size` rows at a time and are recomputed in the backward pass.

    forward, chunk by chunk      states[c] --head--> logits[c] --> log p(targets)[c], H[c], KL[c]
    kept for the backward pass   states, targets, the head: no logits; of log p alone also p of the last chunk
    backward, chunk by chunk     states[c] --head--> logits[c] again --> d loss / d logits[c] = D[c]
                                 gradient of states[c] = D[c] head;  gradient of the head += D[c]^T states[c]
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from papo.functional.head_precision import HeadPrecision

Logits = Float[Tensor, "row vocab"]
"""Of some rows; or log p, or p."""


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
    softcap: float | None = None,
) -> TokenStatistics:
    """Returns log p(target) per row, for one view or two, and on request the exact statistics.

    p = softmax(soft_capped(hidden @ weight.T) / temperature) over the vocabulary without `banned_ids`. Every
    returned field carries gradient to `hidden`, `masked_hidden` and `weight`; the gradients are
    hand-written (second derivatives are not available).

    Args:
        hidden: the state that predicts each target, full image.
        weight: the output embedding; no bias.
        target_ids: the sampled tokens.
        temperature: the sampling temperature; scoring must divide by the same one.
        banned_ids: tokens that cannot be sampled; their probability is exactly 0 and they add
            exactly 0 to entropies and KL. A banned target has log-probability -inf.
        full_vocabulary: also return the entropies and, given both views, the KL.
        chunk_size: rows whose logits exist at once; changes memory, never the result's meaning.
        masked_hidden: the same rows scored against the masked image.
        softcap: of the model's logits; None: they have no bound.

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
    precision = HeadPrecision.of(hidden, weight)
    # Autocast decides what is multiplied, not what is added: inside it the sums would be as narrow.
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
            precision,
            softcap,
        )
    logprobs, masked_logprobs, entropy, masked_entropy, perception_kl = outputs
    return TokenStatistics(
        logprobs=logprobs,
        masked_logprobs=masked_logprobs,
        entropy=entropy,
        masked_entropy=masked_entropy,
        perception_kl=perception_kl,
    )


def _chunks(num_rows: int, chunk_size: int) -> Iterator[slice]:
    for start in range(0, num_rows, chunk_size):
        yield slice(start, min(start + chunk_size, num_rows))


def _logits(
    hidden: Float[Tensor, "row hidden"],
    weight: Float[Tensor, "vocab hidden"],
    banned_ids: Int[Tensor, " banned"] | None,
    temperature: float,
    precision: HeadPrecision,
    softcap: float | None,
) -> Logits:
    """Tempered; -inf at banned ids. `weight` is an operand already."""
    logits = soft_capped(precision.matmul(precision.operand(hidden), weight.t()), softcap)
    if temperature != 1.0:
        logits /= temperature
    return logits if banned_ids is None else logits.index_fill_(1, banned_ids, -torch.inf)


def soft_capped(logits: Logits, softcap: float | None) -> Logits:
    """softcap * tanh(logits / softcap), in their memory (arXiv:2408.00118, section 2)."""
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)


def _capped_slope(logits: Logits, softcap: float, temperature: float) -> Logits:
    """d soft_capped(z) / dz = 1 - tanh(z / softcap)^2, given tempered logits."""
    return (logits * (temperature / softcap)).square_().neg_().add_(1.0)


def _target_logprobs(
    logits: Logits, targets: Int[Tensor, " row"]
) -> tuple[Float[Tensor, " row"], Float[Tensor, "row 1"]]:
    """log p(target), and what makes p of the logits' memory, which holds p times that: no other buffer is made."""
    logits.sub_(logits.amax(1, keepdim=True))
    picked = logits.gather(1, targets[:, None]).squeeze(1)
    total = logits.exp_().sum(1, keepdim=True)
    return picked - total.log().squeeze(1), total


def _probabilities(logits: Logits) -> Logits:
    """p, in the memory of the logits."""
    p = logits.sub_(logits.amax(1, keepdim=True)).exp_()
    return p.div_(p.sum(1, keepdim=True))


def _distribution(
    logits: Logits, banned_ids: Int[Tensor, " banned"] | None
) -> tuple[Logits, Logits]:
    """log p, in the memory of the logits, and p.

    log p is 0 instead of -inf at banned ids: p is exactly 0 there, and 0 * -inf would be NaN.
    """
    logits.sub_(logits.amax(1, keepdim=True))
    p = logits.exp()
    total = p.sum(1, keepdim=True)
    p /= total
    log_p = logits.sub_(total.log_())
    return (log_p if banned_ids is None else log_p.index_fill_(1, banned_ids, 0.0)), p


def _pick(
    log_p: Logits, targets: Int[Tensor, " row"], banned_ids: Int[Tensor, " banned"] | None
) -> Float[Tensor, " row"]:
    picked = log_p.gather(1, targets[:, None]).squeeze(1)
    if banned_ids is None:
        return picked
    return picked.masked_fill(torch.isin(targets, banned_ids), -torch.inf)


def _row_dot(left: Logits, right: Logits) -> Float[Tensor, " row"]:
    """Sum over the vocabulary of left * right, without the product in memory."""
    return torch.bmm(left[:, None, :], right[:, :, None]).flatten()


def _log_p_gradient(
    p: Logits,
    log_p: Logits | None,
    targets: Int[Tensor, " row"],
    grad_logprob: Float[Tensor, " row"] | None,
    grad_entropy: Float[Tensor, " row"] | None,
) -> Logits:
    """d/dz of grad_logprob * log p(target) + grad_entropy * H[p], z the tempered logits.

    d log p(t) / dz_j = 1[j=t] - p_j;  dH/dz_j = -p_j (log p_j + H). Overwrites log_p (and returns it)
    where the entropy has a gradient, else p; `log_p` is finite at banned ids.
    """
    if grad_entropy is not None:
        assert log_p is not None
        entropy = -_row_dot(p, log_p)
        grad = log_p.add_(entropy[:, None]).mul_(p).mul_(-grad_entropy[:, None])
        if grad_logprob is not None:
            grad.addcmul_(p, grad_logprob[:, None].expand_as(p), value=-1.0)
    elif grad_logprob is not None:
        grad = p.mul_(-grad_logprob[:, None])
    else:
        return p.zero_()
    if grad_logprob is not None:
        grad.scatter_add_(1, targets[:, None], grad_logprob[:, None])
    return grad


class _HeadStatistics(torch.autograd.Function):
    """Saves the inputs only, and p of the chunk that was read last; both ways walk over the rows in chunks."""

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
        precision,
        softcap,
    ):
        ctx.save_for_backward(hidden, masked_hidden, weight, targets, banned_ids)
        ctx.settings = (temperature, chunk_size, precision, softcap)
        ctx.set_materialize_grads(False)
        operand = precision.operand(weight)
        two_views = masked_hidden is not None
        exact_two_views = two_views and full_vocabulary
        # The room of a chunk is empty between the passes; a second view or a slope would need more.
        keeps_last = not (two_views or full_vocabulary or softcap) and any(ctx.needs_input_grad)
        ctx.last = None
        logprobs, masked_logprobs, entropy, masked_entropy, perception_kl = (
            hidden.new_empty(len(targets), dtype=precision.sums) for _ in range(5)
        )

        def logits_of(states):
            return _logits(states, operand, banned_ids, temperature, precision, softcap)

        def measure(rows):
            """One chunk; its buffers are gone before the next one's are made."""
            logits = logits_of(hidden[rows])
            if not full_vocabulary:
                logprobs[rows], total = _target_logprobs(logits, targets[rows])
                if keeps_last and rows.stop == len(targets):
                    ctx.last = logits.div_(total)
                del logits  # before the next buffer is made
                if two_views:
                    logits = logits_of(masked_hidden[rows])
                    masked_logprobs[rows], _ = _target_logprobs(logits, targets[rows])
                return
            log_p, p = _distribution(logits, banned_ids)
            logprobs[rows] = _pick(log_p, targets[rows], banned_ids)
            entropy[rows] = -_row_dot(p, log_p)
            if two_views:
                logits = logits_of(masked_hidden[rows])
                log_q, q = _distribution(logits, banned_ids)
                masked_logprobs[rows] = _pick(log_q, targets[rows], banned_ids)
                masked_entropy[rows] = -_row_dot(q, log_q)
                del q
                perception_kl[rows] = _row_dot(p, log_p.sub_(log_q))

        for rows in _chunks(len(targets), chunk_size):
            measure(rows)
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
    temperature, chunk_size, precision, softcap = ctx.settings
    needs_hidden, needs_masked, needs_weight = ctx.needs_input_grad[:3]
    operand = precision.operand(weight)
    grad_hidden = torch.zeros_like(hidden) if needs_hidden else None
    grad_masked = torch.zeros_like(masked_hidden) if needs_masked else None
    grad_weight = torch.zeros_like(weight, dtype=precision.sums) if needs_weight else None
    reads_kl = grads[4] is not None
    reads_p = grads[0] is not None or grads[2] is not None or reads_kl
    reads_q = grads[1] is not None or grads[3] is not None or reads_kl
    # Overwritten below: whoever differentiates twice has it computed again.
    last, ctx.last = ctx.last, None

    def send(grad_logits, state, grad_state, rows, slope):
        """Carries one chunk's gradient from the tempered logits to the state and the weight."""
        if slope is not None:
            grad_logits.mul_(slope)
        if banned_ids is not None:
            grad_logits.index_fill_(1, banned_ids, 0.0)
        grad_logits = grad_logits.to(operand.dtype)
        if grad_state is not None:
            towards = precision.matmul(grad_logits, operand) / temperature
            grad_state[rows] = towards.to(grad_state.dtype)
        if grad_weight is None:
            return
        read = precision.operand(state[rows])
        if read.dtype == grad_weight.dtype:
            grad_weight.addmm_(grad_logits.t(), read, alpha=1.0 / temperature)
        else:
            product = precision.matmul(grad_logits.t(), read)
            grad_weight.add_(product, alpha=1.0 / temperature)

    def distribution(state, rows, *, needs_log):
        if last is not None and rows.stop == len(targets):
            return None, last, None
        logits = _logits(state[rows], operand, banned_ids, temperature, precision, softcap)
        slope = None if softcap is None else _capped_slope(logits, softcap, temperature)
        if not needs_log:
            return None, _probabilities(logits), slope
        return *_distribution(logits, banned_ids), slope

    def differentiate(rows):
        """One chunk; its buffers are gone before the next one's are made."""
        chunk_grads = (None if grad is None else grad[rows] for grad in grads)
        grad_logprob, grad_masked_logprob, grad_entropy, grad_masked_entropy, grad_kl = chunk_grads
        if reads_p:
            log_p, p, slope_p = distribution(
                hidden, rows, needs_log=reads_kl or grad_entropy is not None
            )
        if reads_q:
            log_q, q, slope_q = distribution(
                masked_hidden, rows, needs_log=reads_kl or grad_masked_entropy is not None
            )
        if grad_kl is not None:
            # Both distributions are read again below, so these two are made before anything is
            # overwritten: dKL/dz_q = q - p and dKL/dz_p = p (log p - log q - KL).
            kl_towards_q = (q - p).mul_(grad_kl[:, None])
            log_ratio = log_p - log_q
            kl = _row_dot(p, log_ratio)
            kl_towards_p = log_ratio.sub_(kl[:, None]).mul_(p).mul_(grad_kl[:, None])
        if reads_q and (needs_masked or needs_weight):
            grad = _log_p_gradient(
                q, log_q, targets[rows], grad_masked_logprob, grad_masked_entropy
            )
            if grad_kl is not None:
                grad.add_(kl_towards_q)
            send(grad, masked_hidden, grad_masked, rows, slope_q)
        if reads_p and (needs_hidden or needs_weight):
            grad = _log_p_gradient(p, log_p, targets[rows], grad_logprob, grad_entropy)
            if grad_kl is not None:
                grad.add_(kl_towards_p)
            send(grad, hidden, grad_hidden, rows, slope_p)

    for rows in _chunks(len(targets), chunk_size):
        differentiate(rows)
    grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
    return grad_hidden, grad_masked, grad_weight, *(None,) * 7
