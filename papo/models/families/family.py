"""What a model family has to say for itself: how it reads a prompt, and what it makes of a picture.

A family is a file beside this one: an adapter of the model, the pictures of its processor, a tiny model to test
with. `papo.models.families` names all of them; nothing outside knows one from another.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import (
    Cache,
    DynamicCache,
    PreTrainedModel,
)

from papo.models.counterfactual import Intervention
from papo.models.families.pictures import FamilyPictures
from papo.models.shared_prefix import SharedPrefixLayout, install_shared_prefix_attention
from papo.types import PictureLayout


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VisionFeatures:
    """What the vision tower says of the images of one prompt, one row per image token.

    Attributes:
        tokens: features that replace the embeddings of the image slots.
        deepstack: features added after the first language layers; of most families there are none.
    """

    tokens: Float[Tensor, "image_token hidden"]
    deepstack: tuple[Float[Tensor, "image_token hidden"], ...] = ()

    def split(self, num_tokens: Sequence[int]) -> list["VisionFeatures"]:
        """The features of consecutive prompts with these numbers of image tokens."""
        layers = [layer.split(list(num_tokens)) for layer in self.deepstack]
        return [
            VisionFeatures(tokens=tokens, deepstack=tuple(layer[index] for layer in layers))
            for index, tokens in enumerate(self.tokens.split(list(num_tokens)))
        ]

    def in_slots(
        self,
        embeddings: Float[Tensor, "row token hidden"],
        image_slots: Bool[Tensor, "row token"],
    ) -> Float[Tensor, "row token hidden"]:
        """The embeddings with these features in the image slots, in row-major order."""
        if int(image_slots.sum()) != self.tokens.shape[0]:
            raise ValueError(
                f"{int(image_slots.sum())} image slots for {self.tokens.shape[0]} image features"
            )
        return embeddings.masked_scatter(image_slots[..., None], self.tokens.to(embeddings.dtype))

    @classmethod
    def concatenate(cls, parts: Sequence["VisionFeatures"]) -> "VisionFeatures":
        """The features of all parts, in order."""
        layers = zip(*(part.deepstack for part in parts), strict=True)
        return cls(
            tokens=torch.cat([part.tokens for part in parts]),
            deepstack=tuple(torch.cat(layer) for layer in layers),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TinySizes:
    """Of a random model that is small enough to test with; float32.

    Attributes:
        hidden_size, num_layers, num_heads, num_key_value_heads, intermediate_size: of the language model.
        vision_hidden_size, vision_depth, vision_num_heads: of the vision tower.
        initializer_range: standard deviation of the weights.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vision_hidden_size: int
    vision_depth: int
    vision_num_heads: int
    initializer_range: float

    @property
    def head_channels(self) -> int:
        return self.hidden_size // self.num_heads

    def text_config(self, tokenizer: Any) -> dict[str, Any]:
        """What configurations of language models have in common."""
        return {
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "max_position_embeddings": 8192,
            "initializer_range": self.initializer_range,
            "tie_word_embeddings": True,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParts:
    """Where the parts of a family's Hugging Face models are, by the names of their modules.

    Attributes:
        language: the language model.
        vision: the vision tower, then what joins it to the language model where that is a module of its own.
        vision_layers: the layers of the tower.
        mergers: what makes image tokens of patches.
    """

    language: str
    vision: tuple[str, ...]
    vision_layers: str
    mergers: tuple[str, ...]

    def language_model(self, model: nn.Module) -> Any:
        return model.get_submodule(self.language)

    def vision_modules(self, model: nn.Module) -> list[Any]:
        return [model.get_submodule(name) for name in self.vision]

    def vision_stack(self, model: nn.Module) -> list[Any]:
        return list(model.get_submodule(self.vision_layers).children())

    def merger_modules(self, model: nn.Module) -> list[Any]:
        found = dict(model.named_modules())
        modules = [found[name] for name in self.mergers if name in found]
        lists = [list(m) if isinstance(m, nn.ModuleList) else [m] for m in modules]
        return [each for one in lists for each in one]

    def vision_parameters(self, model: nn.Module) -> list[nn.Parameter]:
        return [p for module in self.vision_modules(model) for p in module.parameters()]


def require_parts(config: Any, *, language: Sequence[str], vision: Sequence[str]) -> None:
    """Returns when a model is made of known parts.

    Raises:
        ValueError: names the part and what is supported.
    """
    for kind, part, known in (
        ("text_config", config.text_config, language),
        ("vision_config", config.vision_config, vision),
    ):
        if (found := part.model_type) not in known:
            raise ValueError(
                f"a model of family {config.model_type!r} is read with {kind}.model_type of "
                f"{', '.join(known)}; got {found!r}. Set model= or model.path= to one of these."
            )


class FamilyAdapter(ABC):
    """Reads prompts with a model of one family.

    Args:
        model: the Hugging Face model.

    Attributes:
        parts: of the family's models.
        position_axes: how many numbers say where a token is.
    """

    parts: ClassVar[ModelParts]
    position_axes: ClassVar[int] = 1

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        # transformers renamed the argument in 5.24 and warns at the old name.
        known = inspect.signature(self.language_model.forward).parameters
        self.cache_argument = "cache" if "cache" in known else "past_key_values"
        install_shared_prefix_attention(self.language_model)

    @staticmethod
    @abstractmethod
    def check(config: Any) -> None:
        """Says before anything is loaded that a model of this family has parts that nobody here knows.

        Raises:
            ValueError: names the part and what is supported.
        """

    @property
    def language_model(self) -> Any:
        return self.parts.language_model(self.model)

    @property
    def vision_tower(self) -> Any:
        return self.vision_modules[0]

    @property
    def vision_modules(self) -> list[Any]:
        """All that says what a picture is: frozen together, and trained together."""
        return self.parts.vision_modules(self.model)

    @property
    def vision_layers(self) -> list[Any]:
        return self.parts.vision_stack(self.model)

    @property
    def head_weight(self) -> Float[Tensor, "vocab hidden"]:
        return self.model.lm_head.weight

    @property
    def logit_softcap(self) -> float | None:
        """The bound of the model's logits, for papo.functional.soft_capped."""
        return getattr(self.language_model.config, "final_logit_softcapping", None)

    @property
    def head_channels(self) -> int:
        """Numbers of a key of one head of the language model."""
        attention = (getattr(layer, "self_attn", None) for layer in self.language_model.layers)
        return int(next(each for each in attention if each is not None).head_dim)

    @property
    def image_token_id(self) -> int:
        return int(self.model.config.image_token_id)

    @property
    @abstractmethod
    def vision_token_ids(self) -> tuple[int, ...]:
        """Ids that stand for vision input: a response that contains one cannot be scored."""

    @abstractmethod
    def vision_features(
        self, patches: Float[Tensor, "patch pixel"], pictures: Sequence[PictureLayout]
    ) -> VisionFeatures:
        """One pass of the vision tower over the images of one or several prompts."""

    @abstractmethod
    def received_attention(
        self, patches: Float[Tensor, "patch pixel"], pictures: Sequence[PictureLayout]
    ) -> Float[Tensor, " patch"]:
        """The attention that patches receive: mean over heads, summed over the patches that attend and over the layers
        in which every patch of a tile sees every other."""

    @staticmethod
    @abstractmethod
    def smallest_picture(config: Any) -> PictureLayout:
        """A picture that the tower of a model of this configuration can read, as small as can be."""

    @staticmethod
    @abstractmethod
    def patch_channels(config: Any) -> int:
        """Numbers that describe one patch."""

    @staticmethod
    @abstractmethod
    def most_patches(config: Any, max_pixels: int) -> tuple[int, int]:
        """Patches and image tokens of the largest picture that such a limit lets through."""

    @staticmethod
    @abstractmethod
    def vision_flops(config: Any, picture: PictureLayout) -> int:
        """Operations of one pass of the tower over one image, as papo.models.flops counts them."""

    def positions(
        self, prompt_ids: Int[Tensor, " prompt_token"], pictures: Sequence[PictureLayout]
    ) -> tuple[Int[Tensor, "axis prompt_token"], int]:
        """Positions of a prompt, and the position of the first token after it: one after another."""
        assert self.position_axes == 1, "a family with several axes says where a token is"
        return torch.arange(prompt_ids.shape[0])[None], prompt_ids.shape[0]

    @property
    def packs(self) -> bool:
        """Whether every layer sees all that was before, and nothing after: prompts and responses can stand in one row."""
        layers = getattr(self.model.config.get_text_config(), "layer_types", None) or ()
        return all(each == "full_attention" for each in layers)

    def new_cache(self) -> DynamicCache:
        """Keys and values of nothing yet."""
        return DynamicCache(config=self.model.config.get_text_config())

    def attention_masks(
        self,
        is_token: Bool[Tensor, "row key"],
        positions: Int[Tensor, "axis row token"],
        image_slots: Bool[Tensor, "row token"] | None,
    ) -> Any:
        """What the language model takes for a mask: of rows with padding, whose last keys are the tokens of the call."""
        return is_token.long()

    def rotary_positions(self, positions: Int[Tensor, "axis row token"]) -> Int[Tensor, "..."]:
        """Positions as the language model takes them."""
        return positions[0] if self.position_axes == 1 else positions

    def token_embeddings(
        self, token_ids: Int[Tensor, "row token"]
    ) -> Float[Tensor, "row token embedded"]:
        return self.model.get_input_embeddings()(token_ids)

    def embed(
        self,
        token_ids: Int[Tensor, "row token"],
        image_slots: Bool[Tensor, "row token"],
        features: VisionFeatures | None,
    ) -> Float[Tensor, "row token embedded"]:
        """Token embeddings with the vision features in the image slots, in row-major order.

        Slots are given, never searched for by id: a sampled image token is then just a token.
        """
        embeddings = self.token_embeddings(token_ids)
        return embeddings if features is None else features.in_slots(embeddings, image_slots)

    def language_inputs(self, embeddings: Float[Tensor, "row token embedded"]) -> dict[str, Tensor]:
        """What the language model takes of `embed` and `token_embeddings`."""
        return {"inputs_embeds": embeddings}

    def backbone(
        self,
        embeddings: Float[Tensor, "row token embedded"],
        positions: Int[Tensor, "axis row token"],
        attention_mask: Bool[Tensor, "row key"] | None,
        *,
        image_slots: Bool[Tensor, "row token"] | None = None,
        features: VisionFeatures | None = None,
        cache: Cache | None = None,
        shared_prefix: SharedPrefixLayout | None = None,
        intervention: Intervention | None = None,
    ) -> Float[Tensor, "row token hidden"]:
        """Last hidden states of the language model; `cache` is read and extended in place.

        Rows are masked by `attention_mask`, or `shared_prefix` says what the tokens of one packed row see.
        """
        extra: dict[str, object] = {}
        if features is not None and features.deepstack:
            extra["visual_pos_masks"] = image_slots
            extra["deepstack_visual_embeds"] = list(features.deepstack)
        mask: Any
        if attention_mask is not None:
            mask = self.attention_masks(attention_mask, positions, image_slots)
        else:
            # transformers hands a four-dimensional mask through as it is; the layout replaces it.
            mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=embeddings.device)
            extra["shared_prefix"] = shared_prefix
        if intervention is not None:
            extra["intervention"] = intervention
        extra[self.cache_argument] = cache
        outputs = self.language_model(
            **self.language_inputs(embeddings),
            position_ids=self.rotary_positions(positions),
            attention_mask=mask,
            use_cache=cache is not None,
            **extra,
        )
        return outputs.last_hidden_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One model family, as `papo.models.families` registers it.

    Attributes:
        adapter: reads prompts with its models.
        pictures: what its processor makes of pictures.
        special_tokens: that its prompts need of a tokenizer.
        named_tokens: of these, those that its Hugging Face processor asks the tokenizer for by name.
        end_token, pad_token: of these, what ends a turn and what pads.
        chat_template: of its tiny models.
        tiny_model: a random model, given its sizes and a tokenizer.
        tiny_processor: the image processor that fits a tiny model's configuration.
    """

    adapter: type[FamilyAdapter]
    pictures: type[FamilyPictures]
    special_tokens: Sequence[str]
    end_token: str
    pad_token: str
    chat_template: str
    tiny_model: Callable[[TinySizes, Any], PreTrainedModel]
    tiny_processor: Callable[[Any], Any]
    named_tokens: Mapping[str, str] = field(default_factory=dict)
