"""The plain way, and the oracle: every response in a row of its own behind a copy of its prompt.

The vision tower still sees each image once; the language model reads each prompt G times.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from papo.models.counterfactual import Intervention
from papo.models.families import VisionFeatures
from papo.models.hidden_states import ImageCosines, Places
from papo.models.reader import PromptReader
from papo.types import PromptGroup


def padded_hidden(
    reader: PromptReader,
    groups: Sequence[PromptGroup],
    response_ids: Int[Tensor, "rollout token"],
    response_mask: Bool[Tensor, "rollout token"],
    *,
    watch: ImageCosines | None = None,
) -> Float[Tensor, "row hidden"]:
    """Hidden states that predict the response tokens, from rows of prompt, padding and response."""
    num_responses, num_tokens = response_ids.shape[0] // len(groups), response_ids.shape[1]
    prompts = reader.pad_prompts(groups)
    features = reader.vision_features(groups)
    embeddings = reader.adapter.embed(prompts.ids, prompts.image_slots, features)
    positions = reader.positions_from(prompts.next_positions, num_tokens)

    def per_response(values: Tensor, dim: int = 0) -> Tensor:
        return values.repeat_interleave(num_responses, dim=dim)

    slots = torch.cat([per_response(prompts.image_slots), torch.zeros_like(response_mask)], dim=1)
    is_token = torch.cat([per_response(prompts.mask), response_mask], dim=1)
    if watch is not None:
        watch.places = _places(prompts.image_slots, response_mask)
    hidden = reader.adapter.backbone(
        torch.cat([per_response(embeddings), reader.adapter.token_embeddings(response_ids)], dim=1),
        torch.cat([per_response(prompts.positions, 1), per_response(positions, 1)], dim=2),
        is_token,
        image_slots=slots,
        features=_per_response_features(features, prompts.image_slots, num_responses),
        intervention=Intervention.of(
            [group.salient_above for group in groups for _ in range(num_responses)], slots, is_token
        ),
    )
    first = hidden[torch.arange(hidden.shape[0], device=hidden.device), per_response(prompts.ends)]
    rest = hidden[:, prompts.ids.shape[1] : prompts.ids.shape[1] + num_tokens - 1]
    return torch.cat([first[:, None], rest], dim=1)[response_mask]


def _places(
    image_slots: Bool[Tensor, "prompt prompt_token"], response_mask: Bool[Tensor, "rollout token"]
) -> Places:
    """Of the rows of prompt, padding and response; a prompt's image tokens are those of its first response's."""
    num_responses = response_mask.shape[0] // image_slots.shape[0]
    prompt_length = image_slots.shape[1]
    length = prompt_length + response_mask.shape[1]
    rollouts, tokens = (response_mask[:, :-1] & response_mask[:, 1:]).nonzero(as_tuple=True)
    prompts, slots = image_slots.nonzero(as_tuple=True)
    return Places(
        responses=rollouts * length + prompt_length + tokens,
        prompts=rollouts // num_responses,
        images=prompts * num_responses * length + slots,
        image_prompts=prompts,
        num_prompts=image_slots.shape[0],
    )


def _per_response_features(
    features: VisionFeatures | None,
    image_slots: Bool[Tensor, "prompt prompt_token"],
    num_responses: int,
) -> VisionFeatures | None:
    """The features of each prompt `num_responses` times, in the order of the repeated rows."""
    if features is None:
        return None
    parts = features.split(image_slots.sum(dim=1).tolist())
    return VisionFeatures.concatenate([part for part in parts for _ in range(num_responses)])
