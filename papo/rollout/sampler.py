"""Samples G responses per prompt from one prefill of the prompt."""

import logging
import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from papo.out_of_memory import is_out_of_memory, release_memory
from papo.rollout.drawing import draw_tokens
from papo.types import PromptGroup, Responses

_log = logging.getLogger(__name__)

# Below this share of unfinished rows the finished ones are dropped from the cache.
_COMPACT_BELOW = 0.75


@runtime_checkable
class DecodingPolicy(Protocol):
    """What the sampler needs of a policy."""

    temperature: float

    @property
    def end_token_ids(self) -> tuple[int, ...]: ...

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
        self.policy = policy
        self.top_p = top_p
        self.top_k = top_k
        self.max_response_tokens = max_response_tokens
        self.max_rows = max_rows

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
        draws = draws.flatten(0, 1)
        num_rows = draws.shape[0]
        prefix = self.policy.prefill(groups).share(num_responses)
        device = prefix.last_hidden.device
        draws = draws.to(device)
        end_ids = torch.tensor(self.policy.end_token_ids, device=device)
        ids = torch.zeros(num_rows, self.max_response_tokens, dtype=torch.long, device=device)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        recorded: Tensor | None = None
        rows = torch.arange(num_rows, device=device)  # which response each row of the cache writes
        active = torch.ones(num_rows, dtype=torch.bool, device=device)
        for step in range(self.max_response_tokens):
            logprobs = self.policy.next_token_logprobs(prefix.last_hidden)
            tokens = draw_tokens(logprobs, draws[rows, step], self.top_p, self.top_k)
            token_logprobs = logprobs.gather(1, tokens[:, None])[:, 0]
            if recorded is None:
                recorded = torch.zeros(ids.shape, dtype=logprobs.dtype, device=device)
            ids[rows[active], step] = tokens[active]
            mask[rows[active], step] = True
            recorded[rows[active], step] = token_logprobs[active]
            active = active & ~torch.isin(tokens, end_ids)
            num_active = int(active.sum())
            if num_active == 0 or step + 1 == self.max_response_tokens:
                break
            if num_active < _COMPACT_BELOW * rows.shape[0]:
                kept = active.nonzero()[:, 0]
                prefix, rows, tokens = prefix.select(kept), rows[kept], tokens[kept]
                active = torch.ones_like(rows, dtype=torch.bool)
            self.policy.extend(prefix, tokens[:, None], active[:, None])
        assert recorded is not None
        longest = int(mask.sum(dim=1).max())
        return ids[:, :longest].cpu(), mask[:, :longest].cpu(), recorded[:, :longest].cpu()


def _uniform_draws(
    seed: int, num_responses: int, num_tokens: int
) -> Float[Tensor, "rollout token"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_responses, num_tokens, generator=generator, dtype=torch.float64)
