"""Attention in which strong looks at a picture see the mean of its values: dense, one sequence at a time.

What is replaced in a prompt depends on the response behind it, so responses share nothing of their prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from papo.functional import attention_change, salient_attention, values_without_picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """A prompt and a response in one row of a call.

    Attributes:
        tokens: their places in it, without padding.
        is_image: which of these are of pictures.
        pictures: [start, end) of each picture among these.
        deviations: as of papo.functional.salient_attention; None: nothing is replaced.
    """

    tokens: Int[Tensor, " token"]
    is_image: Bool[Tensor, " token"]
    pictures: tuple[tuple[int, int], ...]
    deviations: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Intervention:
    """How the rows of a call are read, one after another: no look reaches from one to another."""

    readings: tuple[Reading, ...]

    @classmethod
    def of(
        cls,
        deviations: Sequence[float | None],
        image_slots: Bool[Tensor, "row token"],
        is_token: Bool[Tensor, "row token"],
    ) -> "Intervention | None":
        """The intervention in rows, each with its own deviations; None where nothing is replaced in any."""
        if all(each is None for each in deviations):
            return None
        readings = []
        for above, slots, kept in zip(deviations, image_slots, is_token, strict=True):
            tokens = kept.nonzero()[:, 0]
            readings.append(
                Reading(
                    tokens=tokens,
                    is_image=slots[tokens],
                    pictures=_runs(slots[tokens]),
                    deviations=above,
                )
            )
        return cls(readings=tuple(readings))


def _runs(flags: Bool[Tensor, " token"]) -> tuple[tuple[int, int], ...]:
    """[start, end) of each run of True: between two pictures stand the tokens that bound them."""
    steps = torch.diff(flags.cpu().int(), prepend=torch.zeros(1), append=torch.zeros(1))
    starts, ends = (steps == 1).nonzero()[:, 0], (steps == -1).nonzero()[:, 0]
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))


def intervened_attention(
    query: Float[Tensor, "row head token channel"],
    key: Float[Tensor, "row kv_head token channel"],
    value: Float[Tensor, "row kv_head token channel"],
    *,
    intervention: Intervention,
    scaling: float,
) -> Float[Tensor, "row token head channel"]:
    """softmax(scaling * q k) v, and what the intervention changes of it; float32 or wider, 0 at padding."""
    precise = torch.promote_types(query.dtype, torch.float32)
    repeats = query.shape[1] // key.shape[1]
    rows = []
    with torch.autocast(query.device.type, enabled=False):
        for row, reading in enumerate(intervention.readings):
            q, k, v = (each[row][:, reading.tokens].to(precise) for each in (query, key, value))
            k, v = (each.repeat_interleave(repeats, dim=0) for each in (k, v))
            # A call of its own, so that no matrix of one sequence is there beside those of the next.
            attended = _attended(q, k, v, reading, scaling)
            empty = attended.new_zeros(query.shape[2], *attended.shape[::2])
            rows.append(empty.index_copy(0, reading.tokens, attended.transpose(0, 1)))
    return torch.stack(rows).to(query.dtype)


def _attended(
    query: Float[Tensor, "head token channel"],
    key: Float[Tensor, "head token channel"],
    value: Float[Tensor, "head token channel"],
    reading: Reading,
    scaling: float,
) -> Float[Tensor, "head token channel"]:
    """Of one sequence: it holds two matrices of (head, token, token), and a flag for each of their cells."""
    length = query.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    weights = (query * scaling @ key.transpose(1, 2)).masked_fill(later, -torch.inf).softmax(-1)
    attended = weights @ value
    if reading.deviations is not None and reading.pictures:
        salient = salient_attention(weights, reading.pictures, deviations=reading.deviations)
        mean = values_without_picture(value, reading.is_image)
        attended = attended + attention_change(weights, value, salient, mean)
    return attended
