"""How alike the hidden states of response tokens and of their prompt's image tokens are; no state is kept."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from papo.functional import cosine_with_mean, mean_cosine
from papo.types import Quantity

HIDDEN_QUANTITIES: tuple[Quantity, ...] = ("image_cosine", "image_cosine_layers")
"""What is read of hidden states rather than of the distributions that they give."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Places:
    """Where tokens stand in one call of the language model, its rows one after another.

    Attributes:
        responses: of the response tokens, response after response, each without its last: nothing has to read it.
        prompts: of each, the prompt that it answers.
        images: of the image tokens of prompts.
        image_prompts: of each, its prompt.
        num_prompts: of the call.
    """

    responses: Int[Tensor, " token"]
    prompts: Int[Tensor, " token"]
    images: Int[Tensor, " image_token"]
    image_prompts: Int[Tensor, " image_token"]
    num_prompts: int


class ImageCosines:
    """Takes the cosines of one call of the language model while it runs, layer by layer.

    Args:
        wanted: of HIDDEN_QUANTITIES.

    Attributes:
        places: of the call; whoever makes the call says them before.
        found: the quantities at `places.responses`, after the call.
    """

    def __init__(self, wanted: Collection[Quantity]) -> None:
        self.wanted = frozenset(wanted)
        self.places: Places | None = None
        self.found: dict[Quantity, Tensor] = {}
        self._sum: Tensor | None = None

    @contextmanager
    def watching(self, language_model: nn.Module) -> Iterator[None]:
        """While this is open, a call of the model is watched.

        The states of a model of n layers are what each layer reads, deepstack features included, and what the
        last norm gives: n + 1.
        """
        layers: Any = language_model.layers
        handles = [language_model.register_forward_hook(self._end)]
        if "image_cosine_layers" in self.wanted:
            handles += [
                layer.register_forward_pre_hook(self._layer, with_kwargs=True) for layer in layers
            ]
        self._num_states = len(layers) + 1
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _layer(self, layer: nn.Module, args: Any, kwargs: Any) -> None:
        self._add(args[0] if args else kwargs["hidden_states"])

    def _end(self, model: nn.Module, args: Any, output: Any) -> None:
        states = output.last_hidden_state
        if "image_cosine" in self.wanted:
            self.found["image_cosine"] = self._of(states, cosine_with_mean)
        if "image_cosine_layers" in self.wanted:
            self._add(states)
            assert self._sum is not None
            self.found["image_cosine_layers"] = self._sum / self._num_states

    def _add(self, states: Tensor) -> None:
        cosines = self._of(states, mean_cosine)
        self._sum = cosines if self._sum is None else self._sum + cosines

    def _of(self, states: Tensor, cosine: Any) -> Tensor:
        assert self.places is not None, "whoever calls the model says where the tokens stand"
        rows = states.flatten(0, 1)
        precision = torch.promote_types(states.dtype, torch.float32)
        with torch.autocast(states.device.type, enabled=False):
            found: Tensor = cosine(
                rows[self.places.responses].to(precision),
                self.places.prompts,
                rows[self.places.images].to(precision),
                self.places.image_prompts,
                num_owners=self.places.num_prompts,
            )
        return found
