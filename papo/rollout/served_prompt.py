"""What a server is asked about one prompt, and what it may answer: token ids in, token ids out."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from papo.rollout.connection import ServerDiffers
from papo.rollout.served_policy import ServedPolicy
from papo.types import PromptGroup, shown

# Of an answer in JSON: a token with its log-probability and names of fields; ids of the prompt.
_BYTES_PER_TOKEN = 1_024
_BYTES_PER_PROMPT_TOKEN = 32
_BYTES_BESIDE = 1_000_000
# A token that was drawn has a probability, and beside rounding none is above 1.
_LEAST_LOGPROB = -1e6
_MOST_LOGPROB = 1e-3
# What JSON numbers of every server hold, and still too many for two prompts of a run to have one seed.
_SEED_BITS = 48
# Added to a logit: e^-100 of nothing.
_BANNED = -100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How the responses to a prompt are drawn.

    Attributes:
        model: the name the server has for it.
        num_responses: to every prompt.
        temperature, top_p, top_k, max_response_tokens: as of SharedPrefillSampler.
    """

    model: str
    num_responses: int
    temperature: float
    top_p: float
    top_k: int | None
    max_response_tokens: int

    @property
    def sent_top_k(self) -> int:
        """0 is all, for a server."""
        return self.top_k or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedResponse:
    """One checked response: its tokens, and what the server says of each."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    versions: tuple[str, ...]


def question(
    policy: ServedPolicy, group: PromptGroup, seed: int, drawing: Drawing
) -> dict[str, Any]:
    """Returns the body of a request: one image token per picture, and pictures as the vision tower sees them.

    Their size is then the one that the server would give them, so it changes no pixel.

    Args:
        policy: of the prompt.
        group: the prompt.
        seed: of its draws. A server gives response j the seed `seed + j`, so seeds of prompts are hashes.
        drawing: how.
    """
    pictures = () if group.patches is None else policy.pictures(group.patches, group.pictures)
    return {
        "model": drawing.model,
        "token_ids": _one_token_per_picture(policy, group, len(pictures)),
        "content_parts": [{"type": "image_url", "url": _data_url(each)} for each in pictures],
        "sampling_params": {
            "n": drawing.num_responses,
            "temperature": drawing.temperature,
            "top_p": drawing.top_p,
            "top_k": drawing.sent_top_k,
            "max_tokens": drawing.max_response_tokens,
            "min_tokens": 0,
            "seed": seed % 2**_SEED_BITS,
            "logprobs": 0,
            "stop_token_ids": list(policy.end_token_ids),
            "ignore_eos": False,
            "detokenize": False,
            "logit_bias": {str(token): _BANNED for token in policy.banned_token_ids},
        },
        "return_token_ids": True,
    }


def most_bytes(group: PromptGroup, drawing: Drawing) -> int:
    """The longest answer that an honest server gives."""
    return (
        _BYTES_BESIDE
        + drawing.num_responses * drawing.max_response_tokens * _BYTES_PER_TOKEN
        + group.prompt_ids.shape[0] * _BYTES_PER_PROMPT_TOKEN
    )


def read_answer(
    answer: Mapping[str, Any], policy: ServedPolicy, group: PromptGroup, drawing: Drawing
) -> list[ServedResponse]:
    """Returns the responses in an answer, in their order.

    Raises:
        ServerDiffers: the server read another prompt, or wrote what this policy cannot have written.
    """
    _require_same_prompt(answer.get("prompt_token_ids"), group)
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(each, dict) for each in choices):
        raise ServerDiffers(f"an answer has a list of choices; got {shown(choices)}")
    by_index = {each.get("index"): each for each in choices if type(each.get("index")) is int}
    if len(choices) != drawing.num_responses or set(by_index) != set(range(len(choices))):
        raise ServerDiffers(
            f"an answer has {drawing.num_responses} choices, numbered from 0; got {len(choices)}"
        )
    vocabulary = range(policy.adapter.head_weight.shape[0])
    return [
        _read_choice(by_index[index], policy, vocabulary, drawing) for index in range(len(choices))
    ]


def _read_choice(
    choice: Mapping[str, Any], policy: ServedPolicy, vocabulary: range, drawing: Drawing
) -> ServedResponse:
    ids, banned = choice.get("token_ids"), set(policy.banned_token_ids)
    if (
        not isinstance(ids, list)
        or not 1 <= len(ids) <= drawing.max_response_tokens
        or not all(type(token) is int and token in vocabulary for token in ids)
        or not banned.isdisjoint(ids)
    ):
        raise ServerDiffers(
            f"a response has 1 to {drawing.max_response_tokens} token ids of this policy's vocabulary, and none that "
            f"stands for a picture; got {shown(ids)}"
        )
    ends = [place for place, token in enumerate(ids) if token in policy.end_token_ids]
    if ends[:1] != [len(ids) - 1] and (ends or len(ids) < drawing.max_response_tokens):
        raise ServerDiffers(
            "a response goes on until its first end token or rollout.max_response_tokens="
            f"{drawing.max_response_tokens}; got one of {len(ids)} tokens that ends otherwise "
            f"({shown(choice.get('finish_reason'))}). Is the server's --max-model-len too short?"
        )
    return ServedResponse(
        ids=tuple(ids),
        logprobs=_read_logprobs(choice.get("logprobs"), len(ids)),
        versions=_read_versions(choice.get("weight_versions")),
    )


def _read_logprobs(logprobs: Any, count: int) -> tuple[float, ...]:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    values: list[Any] = [
        each.get("logprob") if isinstance(each, dict) else None
        for each in (content if isinstance(content, list) else ())
    ]
    if len(values) != count or not all(
        type(value) in (int, float) and _LEAST_LOGPROB <= value <= _MOST_LOGPROB for value in values
    ):
        raise ServerDiffers(
            f"every token of a response has a log-probability; got {shown(values)} for {count} tokens"
        )
    return tuple(float(value) for value in values)


def _read_versions(spans: Any) -> tuple[str, ...]:
    versions = [
        each.get("version") if isinstance(each, dict) else None
        for each in (spans if isinstance(spans, list) else ())
    ]
    return tuple(str(version) for version in versions)


def _require_same_prompt(ids: Any, group: PromptGroup) -> None:
    ours = group.prompt_ids.tolist()
    if ids == ours:
        return
    given = len(ids) if isinstance(ids, list) else "no"
    raise ServerDiffers(
        f"a server reads the prompt that it is sent; this one has {len(ours)} tokens, and the server read {given} "
        "tokens, or others. It has another tokenizer, or gives pictures another size: serve the model that is trained, "
        "saved with its own tokenizer and image processor."
    )


def _one_token_per_picture(
    policy: ServedPolicy, group: PromptGroup, num_pictures: int
) -> list[int]:
    """The prompt before its image slots were expanded: a server expands them itself, and would do it twice."""
    image_token, ids = policy.encoder.image_token_id, group.prompt_ids.tolist()
    compact = [
        token
        for before, token in zip([None, *ids], ids, strict=False)
        if token != image_token or token != before
    ]
    assert compact.count(image_token) == num_pictures, "the chat template parts two pictures"
    return compact


def _data_url(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
