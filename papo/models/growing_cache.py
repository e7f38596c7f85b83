"""A cache for decoding that writes new tokens in place instead of copying everything per token."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_SPARE_TOKENS = 128


class GrowingLayer(DynamicLayer):
    """Keys and values as views of a buffer with spare room; grows by `_SPARE_TOKENS` at a time.

    Only without gradient: writing in place would change what autograd has saved, so passes with
    gradient concatenate as the base class does.
    """

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.buffers: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self.keys, self.values
        if torch.is_grad_enabled() or keys is None or values is None or keys.numel() == 0:
            updated: tuple[Tensor, Tensor] = super().update(key_states, value_states)
            return updated
        start = keys.shape[-2]
        end = start + key_states.shape[-2]
        if not self._has_room(keys, end):
            self.buffers = [_with_room(held, end) for held in (keys, values)]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def _has_room(self, keys: Tensor, length: int) -> bool:
        """Whether the held keys are the beginning of the buffer (rows may have been selected since)."""
        return (
            bool(self.buffers)
            and keys.data_ptr() == self.buffers[0].data_ptr()
            and keys.shape[0] == self.buffers[0].shape[0]
            and length <= self.buffers[0].shape[-2]
        )


def growing_cache(config: Any) -> DynamicCache:
    """A `DynamicCache` for this text configuration whose plain layers grow in place."""
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def empty_like(cache: DynamicCache) -> DynamicCache | None:
    """An empty cache of the same growing layers; None where a layer is of another kind."""
    if not all(type(layer) is GrowingLayer for layer in cache.layers):
        return None
    empty = DynamicCache()
    empty.layers = [GrowingLayer() for _ in cache.layers]
    return empty


def _with_room(held: Tensor, length: int) -> Tensor:
    rows, heads, start, channels = held.shape
    buffer = held.new_empty(rows, heads, length + _SPARE_TOKENS, channels)
    buffer[:, :, :start] = held
    return buffer
