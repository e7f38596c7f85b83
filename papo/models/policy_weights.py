"""The weights of a policy: on which device, with which adapters, in which units they are sharded, and how they are saved.

What is read and scored with them is papo.models.policy.
"""

from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from papo.models.families import FamilyAdapter
from papo.models.lora import adapters_off, has_adapters, merged_copy, save_adapter
from papo.models.prompt_encoder import PromptEncoder
from papo.models.reader import PromptReader
from papo.models.weight_files import WeightFiles


class PolicyWeights(nn.Module):
    """What a policy is made of; VisionLanguagePolicy sets all of it.

    Attributes:
        model: the Hugging Face model; its parameters are the policy's.
        adapter: reads prompts with the model.
        encoder: renders prompts and processes images.
        reader: reads prompts and responses with the adapter.
        freeze_vision: the vision tower is left as it is.
        unread_weights: where the weights of a model on the meta device lie; None where they are loaded.
    """

    model: PreTrainedModel
    adapter: FamilyAdapter
    encoder: PromptEncoder
    reader: PromptReader
    freeze_vision: bool
    unread_weights: WeightFiles | None

    def train(self, mode: bool = True) -> "PolicyWeights":
        """Leaves the model in evaluation mode: it has no dropout, and transformers drops the cache of
        a model in training mode that checkpoints activations, which would break every prefill."""
        self.training = mode
        return self

    def read_weight(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of a parameter of the policy that is on the meta device, as they lie in the model's files."""
        assert self.unread_weights is not None, "loaded weights are in memory"
        # An adapted layer stands beside its adapters.
        name = name.removeprefix("model.").replace(".base_layer.", ".")
        return self.unread_weights.read(name, start, stop)

    @property
    def has_adapters(self) -> bool:
        """Whether LoRA adapters are trained instead of the weights."""
        return has_adapters(self.model)

    def without_adapters(self) -> AbstractContextManager[None]:
        """A context in which the LoRA adapters are switched off: the policy before training.

        Raises:
            ValueError: there are none.
        """
        if not self.has_adapters:
            raise ValueError(
                "this policy trains its own weights, so its initial state is gone; keep a copy of it, "
                "or set model.lora"
            )
        return adapters_off(self.model)

    def reference_context(self) -> AbstractContextManager[None]:
        """A context in which this policy is its own reference policy, without a second copy.

        Raises:
            ValueError: it has no adapters to switch off, so the reference must be a copy.
        """
        return self.without_adapters()

    def forward(self) -> None:
        """Reads nothing: a policy is called by the names in `pass_methods`."""

    def shard_units(self) -> list[nn.Module]:
        """The layers, in the order of a pass; a frozen tower is not among them."""
        towers = () if self.freeze_vision else self.adapter.vision_layers
        return [*towers, *self.adapter.language_model.layers]

    def kept_whole(self) -> list[nn.Parameter]:
        """Those of a frozen vision tower: whether a pass calls it depends on what is remembered of its pictures."""
        return self.adapter.parts.vision_parameters(self.model) if self.freeze_vision else []

    def picture_parameters(self) -> list[nn.Parameter]:
        """The trained parameters that only prompts with pictures give a gradient."""
        return [p for p in self.adapter.parts.vision_parameters(self.model) if p.requires_grad]

    @property
    def passes_alike(self) -> bool:
        """Whether every pass calls every unit equally often: passes without a picture look at one too."""
        return self.reader.passes_alike

    @passes_alike.setter
    def passes_alike(self, alike: bool) -> None:
        self.reader.passes_alike = alike

    @property
    def device(self) -> torch.device:
        return self.adapter.head_weight.device

    def save_pretrained(self, folder: Path, *, adapter_only: bool = False) -> None:
        """Writes a folder that Hugging Face loads: safetensors, configuration, tokenizer, processor.

        Adapters are merged into the weights, or with `adapter_only` saved alone, in the format of
        peft: `PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(BASE), FOLDER)`.

        Raises:
            ValueError: `adapter_only` for a policy without adapters.
        """
        if adapter_only and not self.has_adapters:
            raise ValueError("there is no adapter to save; this policy trains all its weights")
        if adapter_only:
            save_adapter(self.model, folder)
        else:
            model = merged_copy(self.model) if self.has_adapters else self.model
            model.save_pretrained(folder)
        self.encoder.save_pretrained(folder)
