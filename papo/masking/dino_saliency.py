"""How much attention DINOv2 pays to each patch of a picture."""

from collections.abc import Sequence
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from transformers import Dinov2Model

from papo.masking.black import image_patches
from papo.storage.hub import check_hub_answers, fetch_model
from papo.types import PromptGroup

# Of ImageNet, as DINOv2's preprocessor_config.json has them.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_REMEDY = (
    "Set masking.saliency.path=FOLDER to a downloaded copy, or masking=semantic_policy to use the "
    "policy's own vision tower."
)


class DinoSaliency:
    """The attention that the patches of a picture receive in some layers of DINOv2.

    arXiv:2507.06448v5: attention averaged over heads, summed over the patches that attend and over
    layers 6 to 9; the class token neither counts nor is counted. Each picture is resized so that
    one patch of DINOv2 covers one patch of the policy's vision tower; above `max_patches` it is
    looked at on a coarser grid, and the result is enlarged again.

    Args:
        path: a local Hugging Face folder; wins over `hub_id`.
        hub_id: a model id of the hub.
        revision: commit or tag on the hub; None for the default branch.
        layers: counted from 1.
        max_patches: of the grid DINOv2 sees; bounds time and memory.
    """

    def __init__(
        self,
        *,
        path: str | None,
        hub_id: str,
        revision: str | None,
        layers: Sequence[int],
        max_patches: int,
    ) -> None:
        if not layers or min(layers) < 1:
            raise ValueError(
                f"attention is read from layers counted from 1; got {list(layers)}. "
                "Set masking.saliency.layers (published: [6,7,8,9])."
            )
        if max_patches < 1:
            raise ValueError(
                f"a picture has at least one patch; got {max_patches}. Set masking.saliency.max_patches."
            )
        self.path = path
        self.hub_id = hub_id
        self.revision = revision
        self.layers = tuple(layers)
        self.max_patches = max_patches

    def preflight(self) -> None:
        """Says whether the weights can be had; reads none.

        Raises:
            FileNotFoundError: neither the folder nor the hub has them; names what to set.
        """
        if self.path is not None:
            if not (Path(self.path).expanduser() / "config.json").is_file():
                raise FileNotFoundError(
                    "masking.saliency.path must be a Hugging Face folder with a config.json; "
                    f"got {self.path!r}"
                )
        elif not isinstance(
            try_to_load_from_cache(self.hub_id, "config.json", revision=self.revision), str
        ):
            check_hub_answers(self.hub_id, kind="model", revision=self.revision, remedy=_REMEDY)

    @torch.no_grad()
    def __call__(self, group: PromptGroup) -> Float[Tensor, " patch"]:
        """Returns the attention each row of `group.patches` receives, on the CPU; 0 in thumbnails.

        Raises:
            FileNotFoundError: the weights cannot be had.
            ValueError: the prompt has no image, or the model has fewer layers.
        """
        image_patches(group)
        found = []
        for image, picture in zip(group.problem.images, group.pictures, strict=True):
            received = picture.in_rows(self._attention_received(image, *picture.grid))
            found.append(pad(received, (0, picture.num_patches - picture.num_first)))
        return torch.cat(found)

    def _attention_received(
        self, image: Image.Image, rows: int, columns: int
    ) -> Float[Tensor, "row column"]:
        shrink = min(1.0, sqrt(self.max_patches / (rows * columns)))
        seen = (max(1, int(rows * shrink)), max(1, int(columns * shrink)))
        attentions = self._model(self._pixels(image, *seen), output_attentions=True).attentions
        # One map per layer, [1, head, query, key]; the first token of each is the class token.
        received = sum(
            attentions[layer - 1][0].mean(dim=0)[1:, 1:].sum(dim=0) for layer in self.layers
        )
        assert isinstance(received, Tensor)
        grid = received.float().cpu().reshape(1, 1, *seen)
        return torch.nn.functional.interpolate(grid, size=(rows, columns), mode="nearest")[0, 0]

    def _pixels(self, image: Image.Image, rows: int, columns: int) -> Float[Tensor, "1 3 y x"]:
        side: Any = self._model.config.patch_size
        resized = image.convert("RGB").resize(
            (columns * side, rows * side), Image.Resampling.BICUBIC
        )
        pixels = torch.from_numpy(np.asarray(resized, dtype=np.float32) / 255.0)
        normalised = (pixels - torch.tensor(_MEAN)) / torch.tensor(_DEVIATION)
        return normalised.permute(2, 0, 1)[None].to(self._model.device)

    @cached_property
    def _model(self) -> Dinov2Model:
        self.preflight()
        source: dict[str, Any] = {} if self.path else {"revision": self.revision}
        if not self.path:
            fetch_model(self.hub_id, revision=self.revision)
        model = Dinov2Model.from_pretrained(
            self.path or self.hub_id,
            attn_implementation="eager",  # the others do not hand out attention
            **source,
        )
        if max(self.layers) > model.config.num_hidden_layers:
            raise ValueError(
                f"{self.path or self.hub_id} has {model.config.num_hidden_layers} layers; got "
                f"masking.saliency.layers={list(self.layers)}"
            )
        return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
