"""Samples G responses per prompt from one prefill of the prompt."""

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from papo.machine.out_of_memory import is_out_of_memory, release_memory
from papo.rollout.drawing import draw_from_head, draw_from_sorted
from papo.types import Begun, PromptGroup, Responses

_log = logging.getLogger(__name__)

# Below this share of unfinished rows the finished ones are dropped from the cache.
_COMPACT_BELOW = 0.75

# A device other than the CPU is asked after so many tokens which rows have ended: to answer, it stops.
_TOKENS_BETWEEN_LOOKS = 16


@runtime_checkable
class DecodingPolicy(Protocol):
    """What the sampler needs of a policy."""

    temperature: float

    @property
    def end_token_ids(self) -> tuple[int, ...]: ...

    def decoding(self, *, static: bool | None) -> AbstractContextManager[None]: ...

    def prefill(self, groups: Sequence[PromptGroup]) -> Any: ...

    def extend(
        self,
        prefix: Any,
        token_ids: Int[Tensor, "row token"],
        token_mask: Bool[Tensor, "row token"],
    ) -> Float[Tensor, "row token hidden"]: ...

    def next_token_logprobs(
        self, hidden: Float[Tensor, "row hidden"]
    ) -> Float[Tensor, "row vocab"]: ...

    def decode_responses(
        self,
        groups: Sequence[PromptGroup],
        ids: Int[Tensor, "rollout token"],
        mask: Bool[Tensor, "rollout token"],
    ) -> tuple[str, ...]: ...


def check_sampling(
    *, temperature: float, top_p: float, top_k: int | None, max_response_tokens: int
) -> None:
    """Checks the settings of sampling, which needs no policy.

    Raises:
        ValueError: an impossible setting, with its key.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"sampling needs a finite temperature above 0; got {temperature}. Set rollout.temperature; for "
            "greedy decoding set rollout.top_k=1."
        )
    if not 0 < top_p <= 1:
        raise ValueError(f"top-p is a probability above 0; got {top_p}. Set rollout.top_p.")
    if top_k is not None and top_k < 1:
        raise ValueError(
            f"top-k keeps at least one token; got {top_k}. Set rollout.top_k (null keeps all)."
        )
    if max_response_tokens < 1:
        raise ValueError(
            "a response has room for at least one token; got "
            f"{max_response_tokens}. Set rollout.max_response_tokens."
        )


def check_call(groups: Sequence[PromptGroup], num_responses: int, seeds: Sequence[int]) -> None:
    """Checks what an engine is asked for.

    Raises:
        ValueError: no group, no response, or not one seed per group.
    """
    if not groups or num_responses < 1:
        raise ValueError(
            f"sampling writes at least one response to at least one prompt; got {len(groups)} "
            f"prompts and {num_responses} responses. Set rollout.num_responses."
        )
    if len(seeds) != len(groups):
        raise ValueError(
            f"every prompt has its own seed; got {len(seeds)} seeds for {len(groups)} prompts"
        )


def sampled_here(responses: Responses) -> Responses:
    """The responses, with it on record that this policy drew the tokens, and what it said of them then."""
    return replace(
        responses,
        behaviour_logprobs=responses.logprobs,
        from_server=torch.zeros(responses.ids.shape[0], dtype=torch.bool),
    )


class SharedPrefillSampler:
    """Reads each prompt once, holds it once for its G rows, decodes token by token.

    The log-probability kept of a token is that of the untruncated policy, as scoring computes it:
    top-k and top-p shape what is drawn, not what is recorded.

    Args:
        policy: the policy that writes.
        temperature: must be the policy's, since scoring divides logits by it too.
        top_p: draws come from the smallest set of tokens whose probability reaches it.
        top_k: draws come from the so many most likely tokens, before top-p; 1 is greedy decoding,
            None keeps all.
        max_response_tokens: a response is cut at this length.
        max_rows: responses decoded side by side; bounds the memory of the cache. Where memory runs out
            it is halved, and stays so.
        cuda_graphs: `auto` records a decoding step on a GPU and replays it; `never` does not.

    Attributes:
        look_every: tokens after which finished rows are looked for; None: 1 on a CPU.
        static: as of DecodeStep; None: on a GPU.

    Raises:
        ValueError: an impossible setting.
    """

    def __init__(
        self,
        *,
        policy: DecodingPolicy,
        temperature: float,
        top_p: float,
        top_k: int | None,
        max_response_tokens: int,
        max_rows: int,
        cuda_graphs: str = "auto",
    ) -> None:
        if temperature != policy.temperature:
            raise ValueError(
                "sampling and scoring divide by the same temperature; got "
                f"rollout.temperature={temperature} and model.temperature={policy.temperature}"
            )
        check_sampling(
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            max_response_tokens=max_response_tokens,
        )
        if max_rows < 1:
            raise ValueError(f"sampling decodes at least one row; got rollout.max_rows={max_rows}")
        if cuda_graphs not in ("auto", "never"):
            raise ValueError(
                f"decoding steps are recorded on a GPU or not; got rollout.cuda_graphs={cuda_graphs!r}. Set it to "
                "auto or never."
            )
        self.look_every: int | None = None
        self.static = None if cuda_graphs == "auto" else False
        self.policy = policy
        self.top_p = top_p
        self.top_k = top_k
        self.max_response_tokens = max_response_tokens
        self.max_rows = max_rows

    def greedy(self) -> "SharedPrefillSampler":
        """Returns a sampler of the same policy that always takes the most likely token."""
        sampler = copy(self)
        sampler.top_k = 1
        return sampler

    def follow(self, source: Any, version: str) -> None:
        """Reads the policy itself, whose weights are always the newest."""

    @torch.no_grad()
    def sample(
        self, groups: Sequence[PromptGroup], num_responses: int, seeds: Sequence[int]
    ) -> Responses:
        """Returns `num_responses` contiguous responses per group.

        The draws of a response depend on (seed of its group, index of the response) alone.

        Raises:
            ValueError: no group, no response, or not one seed per group.
            MemoryError: a single response does not fit into memory.
        """
        check_call(groups, num_responses, seeds)
        draws = torch.stack(
            [_uniform_draws(seed, num_responses, self.max_response_tokens) for seed in seeds]
        )
        with self.policy.decoding(static=self.static):
            parts = self._decode_in_parts(groups, draws)
        longest = max(mask.shape[1] for _, mask, _ in parts)

        def stack(index: int) -> Tensor:
            padded = [
                torch.nn.functional.pad(part[index], (0, longest - part[index].shape[1]))
                for part in parts
            ]
            return torch.cat(padded)

        ids, mask, logprobs = stack(0), stack(1), stack(2)
        lengths = mask.sum(dim=1)
        last_ids = ids[torch.arange(ids.shape[0]), lengths - 1]
        finished = torch.isin(last_ids, torch.tensor(self.policy.end_token_ids))
        return Responses(
            ids=ids,
            mask=mask,
            logprobs=logprobs,
            finished=finished,
            texts=self.policy.decode_responses(groups, ids, mask),
        )

    def begin(
        self, groups: Sequence[PromptGroup], num_responses: int, seeds: Sequence[int]
    ) -> Begun:
        """Samples at once: what trains the policy later on these has an older policy's responses."""
        responses = sampled_here(self.sample(groups, num_responses, seeds))
        return Begun(finish=lambda: responses, stop=lambda: None)

    def _decode_in_parts(
        self, groups: Sequence[PromptGroup], draws: Float[Tensor, "group response token"]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Decodes at most `max_rows` rows at a time: whole groups, or parts of one that is larger."""
        num_groups, num_responses, _ = draws.shape
        if num_groups > 1 and num_groups * num_responses > self.max_rows:
            at_once = max(1, self.max_rows // num_responses)
            return [
                part
                for start in range(0, num_groups, at_once)
                for part in self._decode_in_parts(
                    groups[start : start + at_once], draws[start : start + at_once]
                )
            ]
        if num_responses > self.max_rows:
            return [
                part
                for some in draws.split(self.max_rows, dim=1)
                for part in self._decode_in_parts(groups, some)
            ]
        try:
            return [self._decode(groups, draws)]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        # Only here, where the exception and the tensors of its frames are gone.
        release_memory()
        if num_groups * num_responses == 1:
            raise MemoryError(
                f"out of memory while decoding a single response ({reason}). Lower "
                "rollout.max_response_tokens or model.max_pixels, or use a larger device."
            )
        self.max_rows = max(1, num_groups * num_responses // 2)
        _log.warning(
            "out of memory while decoding %d responses side by side; done again with %d, which stays "
            "for the rest of the run (%s)",
            num_groups * num_responses,
            self.max_rows,
            reason,
        )
        return self._decode_in_parts(groups, draws)

    def _decode(
        self, groups: Sequence[PromptGroup], draws: Float[Tensor, "group response token"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, mask and log-probabilities on the CPU, cut at the longest response."""
        num_responses = draws.shape[1]
        prefix = self.policy.prefill(groups).share(num_responses)
        span = _Span(self, prefix, draws.flatten(0, 1).to(prefix.last_hidden.device))
        every = self.look_every or (1 if span.device.type == "cpu" else _TOKENS_BETWEEN_LOOKS)
        if not prefix.can_forget:
            every = 1  # a token that was read cannot be taken back
        start = 0
        while True:
            stop = min(start + every, self.max_response_tokens)
            num_active = span.write(start, stop)
            if num_active == 0 or stop == self.max_response_tokens:
                return span.written.cut()
            if num_active < _COMPACT_BELOW * span.rows.shape[0]:
                span.drop_finished()
            span.read()
            start = stop


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Written:
    """What was drawn so far, on the device; 0 where nothing was."""

    ids: Int[Tensor, "token rollout"]
    mask: Bool[Tensor, "token rollout"]
    logprobs: Float[Tensor, "token rollout"]

    def cut(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of tokens on the CPU, cut at the longest response."""
        longest = int(self.mask.sum(dim=0).max())
        ids, mask, logprobs = (
            each[:longest].T.contiguous().cpu() for each in (self.ids, self.mask, self.logprobs)
        )
        return ids, mask, logprobs


class _Span:
    """The rows that are decoded side by side, and what they have written.

    Between two looks nothing is read back from the device: rows that have ended go on, unrecorded.
    """

    def __init__(self, sampler: SharedPrefillSampler, prefix: Any, draws: Tensor) -> None:
        num_rows, num_tokens = draws.shape
        self.sampler, self.policy, self.prefix, self.draws = sampler, sampler.policy, prefix, draws
        self.device = draws.device
        self.end_ids = torch.tensor(self.policy.end_token_ids, device=self.device)
        self.rows = torch.arange(num_rows, device=self.device)  # which response each row writes
        self.active = torch.ones(num_rows, dtype=torch.bool, device=self.device)
        self.tokens = self.rows
        hidden = prefix.last_hidden
        ids = torch.zeros(num_tokens, num_rows, dtype=torch.long, device=self.device)
        self.written = _Written(
            ids=ids,
            mask=torch.zeros_like(ids, dtype=torch.bool),
            logprobs=torch.zeros_like(ids, dtype=torch.promote_types(hidden.dtype, torch.float32)),
        )

    def write(self, start: int, stop: int) -> int:
        """Draws tokens `start` to `stop` of every row; returns how many rows have not ended.

        The last of them is drawn, not read.
        """
        before = self.active, self.prefix.last_hidden.clone()
        certain = self._draw(start, stop, draw_from_head)
        num_active = self.active.sum()
        if certain is None:
            return int(num_active)
        found = int(torch.where(certain, num_active, -1))
        if found >= 0:
            return found
        # A nucleus was larger than what was looked at: all of it again, from all tokens in order.
        self.active, last_hidden = before
        if stop - start > 1:
            self.prefix.forget(stop - start - 1, last_hidden)
        self._draw(start, stop, draw_from_sorted)
        return int(self.active.sum())

    def _draw(self, start: int, stop: int, draw: Callable[..., Any]) -> Tensor | None:
        """Whether all tokens are as they must be, on the device; None where there is no doubt."""
        top_p, top_k, written = self.sampler.top_p, self.sampler.top_k, self.written
        certain: Tensor | None = None
        for step in range(start, stop):
            if step > start:
                self.read()
            logprobs = self.policy.next_token_logprobs(self.prefix.last_hidden)
            drawn = draw(logprobs, self.draws[:, step].index_select(0, self.rows), top_p, top_k)
            self.tokens, sure = drawn if isinstance(drawn, tuple) else (drawn, None)
            if sure is not None:
                certain = sure if certain is None else certain & sure
            found = logprobs.gather(1, self.tokens[:, None])[:, 0]
            written.ids[step].scatter_(0, self.rows, self.tokens.where(self.active, 0))
            written.mask[step].scatter_(0, self.rows, self.active)
            written.logprobs[step].scatter_(0, self.rows, found.where(self.active, 0.0))
            self.active = self.active & (self.tokens[:, None] != self.end_ids).all(dim=1)
        return certain

    def read(self) -> None:
        """Reads the tokens that were drawn last."""
        self.policy.extend(self.prefix, self.tokens[:, None], self.active[:, None])

    def drop_finished(self) -> None:
        kept = self.active.nonzero()[:, 0]
        self.prefix, self.rows = self.prefix.select(kept), self.rows[kept]
        self.tokens, self.active = self.tokens[kept], torch.ones_like(kept, dtype=torch.bool)


def _uniform_draws(
    seed: int, num_responses: int, num_tokens: int
) -> Float[Tensor, "rollout token"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_responses, num_tokens, generator=generator, dtype=torch.float64)
