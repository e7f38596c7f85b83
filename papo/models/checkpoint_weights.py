"""A policy's weights as a plain Hugging Face model would hold them, one at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

from papo.models.lora import merged_weight
from papo.parallel import full_tensor

_BASE = ".base_layer."
_ADAPTER = ".lora_"


@torch.no_grad()
def checkpoint_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yields the name and value of every weight, as of the model that `save_pretrained` writes and transformers loads.

    A tied head is the embeddings, and comes once.

    The model stays as it is: W + (alpha / r) B A of an adapted layer is computed beside it. A collective where
    the weights are in shards: one adapted layer is whole at a time, other weights are yielded as shards.
    """
    for name, value in model.named_parameters():
        if _ADAPTER in name:
            continue
        if _BASE in name and name.endswith(".weight"):
            layer = model.get_submodule(name.partition(_BASE)[0])
            yield name.replace(_BASE, "."), merged_weight(layer, full_tensor)
        else:
            yield name.replace(_BASE, "."), value.detach()
