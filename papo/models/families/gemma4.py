"""Gemma 4: pictures of their own aspect that fill a budget of tokens; windows, shared keys, embeddings per layer.

Tokens of a picture see one another in layers with a window alone, and only in the large models. The small ones read an
embedding of every token in every layer, and their last layers reuse keys of earlier ones. Audio is not read.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn
from transformers import Gemma4Config, Gemma4ForConditionalGeneration, PreTrainedModel
from transformers.models.gemma4.image_processing_pil_gemma4 import (
    _SUPPORTED_SOFT_TOKENS as BUDGETS,
)
from transformers.models.gemma4.image_processing_pil_gemma4 import (
    Gemma4ImageProcessorPil,
    get_aspect_ratio_preserving_size,
)
from transformers.models.gemma4.modeling_gemma4 import apply_multidimensional_rope

from papo.models.families.family import (
    Family,
    ModelParts,
    TinySizes,
    VisionFeatures,
    require_parts,
)
from papo.models.families.pictures import FamilyPictures
from papo.models.families.tiles import attention_in_tiles
from papo.models.families.windows import WindowedAdapter, require_windows
from papo.types import PictureLayout


def token_pixels(vision: Any) -> int:
    """Pixels of a picture that become one image token."""
    return int((vision.pooling_kernel_size * vision.patch_size) ** 2)


def budget(vision: Any, max_pixels: int) -> int:
    """The most image tokens of a picture that such a limit lets through; the fewest there are where it lets none."""
    fitting = [each for each in BUDGETS if each * token_pixels(vision) <= max_pixels]
    return int(max(fitting, default=BUDGETS[0]))


class Gemma4Adapter(WindowedAdapter):
    """Reads prompts with a `Gemma4ForConditionalGeneration`.

    What `embed` and `token_embeddings` return holds the embeddings of every layer behind those of the first one.
    """

    parts = ModelParts(
        language="model.language_model",
        vision=("model.vision_tower", "model.embed_vision"),
        vision_layers="model.vision_tower.encoder.layers",
        mergers=("model.embed_vision",),
    )

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self.text = self.language_model.config
        for name in ("audio_tower", "embed_audio"):
            if (unread := getattr(model.model, name)) is not None:
                unread.requires_grad_(False)

    @staticmethod
    def check(config: Any) -> None:
        require_parts(config, language=("gemma4_text",), vision=("gemma4_vision",))
        require_windows(config, refused=("enable_moe_block",))
        text = config.text_config
        if text.use_bidirectional_attention == "all":
            raise ValueError(
                "a Gemma 4 writes one token after another; got text_config.use_bidirectional_attention='all'. Set "
                "model= or model.path= to another."
            )
        if text.num_kv_shared_layers and not text.hidden_size_per_layer_input:
            raise ValueError(
                "transformers reads a Gemma 4 with text_config.num_kv_shared_layers only where it has "
                f"hidden_size_per_layer_input as well; got {text.num_kv_shared_layers} and "
                f"{text.hidden_size_per_layer_input}. Set model= or model.path= to another."
            )

    @property
    def mutual_layers(self) -> tuple[str, ...]:
        return ("sliding_attention",) if self.text.use_bidirectional_attention == "vision" else ()

    @property
    def vision_token_ids(self) -> tuple[int, ...]:
        config = self.model.config
        images = (config.image_token_id, config.boi_token_id, config.eoi_token_id)
        sounds = (config.audio_token_id, config.boa_token_id, config.eoa_token_index)
        ids = (*images, config.video_token_id, *sounds)
        return tuple(sorted(int(each) for each in ids if each is not None))

    def vision_features(
        self, patches: Float[Tensor, "patch pixel"], pictures: Sequence[PictureLayout]
    ) -> VisionFeatures:
        pixels, places = padded_pictures(patches, pictures)
        outputs = self.model.model.get_image_features(pixels, places, return_dict=True)
        return VisionFeatures(tokens=torch.cat(outputs.pooler_output))

    def received_attention(
        self, patches: Float[Tensor, "patch pixel"], pictures: Sequence[PictureLayout]
    ) -> Float[Tensor, " patch"]:
        """Of all layers."""
        attentions, received = [layer.self_attn for layer in self.vision_layers], []
        parts = patches.split([each.num_patches for each in pictures])
        for part, picture in zip(parts, pictures, strict=True):  # without padding
            pixels, places = padded_pictures(part, [picture])
            with attention_in_tiles(attentions, _vision_heads) as found:
                self.vision_tower(pixel_values=pixels, pixel_position_ids=places)
            received.append(picture.in_tile_rows(found()))
        return torch.cat(received)

    def token_embeddings(
        self, token_ids: Int[Tensor, "row token"]
    ) -> Float[Tensor, "row token embedded"]:
        embeddings = super().token_embeddings(token_ids)
        if not self.text.hidden_size_per_layer_input:
            return embeddings
        of_layers = self.language_model.embed_tokens_per_layer(token_ids)
        return torch.cat([embeddings, of_layers], dim=-1)

    def embed(
        self,
        token_ids: Int[Tensor, "row token"],
        image_slots: Bool[Tensor, "row token"],
        features: VisionFeatures | None,
    ) -> Float[Tensor, "row token embedded"]:
        # In an image slot layers read the embedding of padding.
        words = token_ids.masked_fill(image_slots, self.text.pad_token_id)
        embeddings = self.token_embeddings(words)
        if features is None:
            return embeddings
        first, of_layers = embeddings.tensor_split([self.text.hidden_size], dim=-1)
        return torch.cat([features.in_slots(first, image_slots), of_layers], dim=-1)

    def language_inputs(self, embeddings: Float[Tensor, "row token embedded"]) -> dict[str, Tensor]:
        first, of_layers = embeddings.tensor_split([self.text.hidden_size], dim=-1)
        if not of_layers.shape[-1]:
            return super().language_inputs(first)
        return {
            "inputs_embeds": first,
            "per_layer_inputs": of_layers.unflatten(-1, (self.text.num_hidden_layers, -1)),
        }

    @staticmethod
    def smallest_picture(config: Any) -> PictureLayout:
        side = int(config.vision_config.pooling_kernel_size)
        return PictureLayout(rows=side, columns=side, token_side=side)

    @staticmethod
    def patch_channels(config: Any) -> int:
        return int(3 * config.vision_config.patch_size**2)

    @staticmethod
    def most_patches(config: Any, max_pixels: int) -> tuple[int, int]:
        tokens = budget(config.vision_config, max_pixels)
        return tokens * config.vision_config.pooling_kernel_size**2, tokens

    @staticmethod
    def vision_flops(config: Any, picture: PictureLayout) -> int:
        vision, hidden = config.vision_config, config.vision_config.hidden_size
        patches, tokens = picture.num_patches, picture.num_tokens
        queries = vision.num_attention_heads * vision.head_dim
        keys = vision.num_key_value_heads * vision.head_dim
        block = 2 * hidden * (2 * queries + 2 * keys + 3 * vision.intermediate_size)
        tower = 2 * hidden * Gemma4Adapter.patch_channels(config) * patches
        tower += vision.num_hidden_layers * (block * patches + 4 * queries * patches**2)
        pooled = 2 * hidden * patches * tokens  # a matrix says which patches a token is the mean of
        return int(tower + pooled + 2 * config.text_config.hidden_size * hidden * tokens)


def padded_pictures(
    patches: Float[Tensor, "patch pixel"], pictures: Sequence[PictureLayout]
) -> tuple[Float[Tensor, "picture longest pixel"], Int[Tensor, "picture longest 2"]]:
    """Patches as transformers has them, row by row and channels last, and the column and row of each; -1 at padding."""
    pixels, places = [], []
    for part, picture in zip(
        patches.split([each.num_patches for each in pictures]), pictures, strict=True
    ):
        rows = picture.over_picture(part).flatten(0, 1)
        pixels.append(rows.unflatten(1, (3, -1)).transpose(1, 2).flatten(1))
        grid = torch.cartesian_prod(torch.arange(picture.rows), torch.arange(picture.columns))
        places.append(grid.flip(1).to(patches.device))
    return (
        nn.utils.rnn.pad_sequence(pixels, batch_first=True),
        nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1),
    )


def _vision_heads(
    attention: Any,
    hidden: Tensor,
    *,
    position_embeddings: tuple[Tensor, Tensor],
    position_ids: Tensor,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    queries, keys = (
        apply_multidimensional_rope(
            norm(projection(hidden).unflatten(-1, (-1, attention.head_dim))),
            *position_embeddings,
            position_ids,
        ).transpose(1, 2)
        for norm, projection in (
            (attention.q_norm, attention.q_proj),
            (attention.k_norm, attention.k_proj),
        )
    )
    return queries * attention.scaling, keys.repeat_interleave(
        queries.shape[1] // keys.shape[1], dim=1
    )


class Gemma4Pictures(FamilyPictures):
    """Every picture is enlarged or shrunk to as many whole tokens of its aspect as a budget of tokens holds.

    Raises:
        ValueError: the processor cuts other patches or tokens than the model reads.
    """

    processor_class = Gemma4ImageProcessorPil
    processor_names = ("Gemma4ImageProcessor",)

    def __init__(self, processor: Any, tokenizer: Any, config: Any) -> None:
        super().__init__(processor, tokenizer, config)
        self.vision = config.vision_config
        for name in ("patch_size", "pooling_kernel_size"):
            if (found := getattr(processor, name)) != (read := getattr(self.vision, name)):
                raise ValueError(
                    f"the image processor has a {name} of {found}, and the model reads {read}; use the "
                    "preprocessor_config.json that came with the model"
                )
        self.bounds = (int(config.boi_token_id), int(config.eoi_token_id))

    def limit(self, *, min_pixels: int | None, max_pixels: int | None) -> None:
        if max_pixels is not None:
            self.processor.max_soft_tokens = budget(self.vision, max_pixels)
        _, most = self.limits
        if min_pixels is not None and min_pixels > most:
            raise ValueError(
                f"every picture of this family fills {self.processor.max_soft_tokens} tokens, which are {most} pixels; "
                f"got model.min_pixels={min_pixels}. Set it to null, or model.max_pixels higher."
            )

    @property
    def limits(self) -> tuple[int, int]:
        pixels = token_pixels(self.vision)
        return pixels, self.processor.max_soft_tokens * pixels

    def layout(self, height: int, width: int) -> PictureLayout:
        patch, side = self.vision.patch_size, self.vision.pooling_kernel_size
        most = self.processor.max_soft_tokens * side**2
        rows, columns = (
            length // patch
            for length in get_aspect_ratio_preserving_size(height, width, patch, most, side)
        )
        return PictureLayout(rows=rows, columns=columns, token_side=side)

    def process(
        self, images: Sequence[Image.Image]
    ) -> tuple[Float[Tensor, "patch pixel"], tuple[PictureLayout, ...]]:
        processed = self.processor(images=list(images), return_tensors="pt")
        pictures = tuple(self.layout(image.height, image.width) for image in images)
        patches = []
        for padded, picture in zip(processed["pixel_values"], pictures, strict=True):
            rows = padded[: picture.num_patches].unflatten(1, (-1, 3)).transpose(1, 2).flatten(1)
            patches.append(picture.in_rows(rows.unflatten(0, picture.grid)))
        return torch.cat(patches), pictures

    def prompt_ids(self, picture: PictureLayout) -> list[int]:
        begin, end = self.bounds
        return [begin, *[self.image_token_id] * picture.num_tokens, end]


def _tiny_gemma4(sizes: TinySizes, tokenizer: Any) -> PreTrainedModel:
    """All at once that published models have by turns; keys are shared where there are layers enough."""
    ids, num_layers = tokenizer.get_vocab(), sizes.num_layers
    kinds = ["full_attention" if index % 2 else "sliding_attention" for index in range(num_layers)]
    model = Gemma4ForConditionalGeneration(
        Gemma4Config(
            text_config={
                **sizes.text_config(tokenizer),
                "head_dim": sizes.head_channels,
                "global_head_dim": 2 * sizes.head_channels,
                "num_global_key_value_heads": 1,
                "attention_k_eq_v": True,
                "sliding_window": 48,  # less than a picture
                "layer_types": [*kinds[:-1], "full_attention"],
                "num_kv_shared_layers": num_layers // 4,
                "use_double_wide_mlp": True,
                "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": len(tokenizer),
                "use_bidirectional_attention": "vision",
                "final_logit_softcapping": 30.0,
            },
            vision_config={
                "hidden_size": sizes.vision_hidden_size,
                "num_hidden_layers": sizes.vision_depth,
                "num_attention_heads": sizes.vision_num_heads,
                "num_key_value_heads": sizes.vision_num_heads,
                "head_dim": sizes.vision_hidden_size // sizes.vision_num_heads,
                "intermediate_size": 2 * sizes.vision_hidden_size,
                "patch_size": 6,
                "pooling_kernel_size": 2,
                "position_embedding_size": 2 * max(BUDGETS[:3]),
                "use_clipped_linears": True,
                "standardize": True,
                "initializer_range": sizes.initializer_range,
            },
            audio_config=None,
            image_token_id=ids["<|image|>"],
            boi_token_id=ids["<|image>"],
            eoi_token_id=ids["<image|>"],
            video_token_id=ids["<|video|>"],
            audio_token_id=ids["<|audio|>"],
            boa_token_id=ids["<|audio>"],
            eoa_token_index=ids["<audio|>"],
            initializer_range=sizes.initializer_range,
            tie_word_embeddings=True,
        )
    )
    tower = model.model.vision_tower
    nn.init.normal_(tower.patch_embedder.position_embedding_table, std=sizes.initializer_range)
    nn.init.normal_(tower.std_bias, std=sizes.initializer_range)  # 0 by default
    layers: list[Any] = [*model.model.language_model.layers, *tower.encoder.layers]
    for layer in layers:  # attention has no scale but that of its norms, which are 1 by default
        nn.init.constant_(layer.self_attn.q_norm.weight, layer.self_attn.head_dim**-0.5)
    return model


def _tiny_processor(config: Any) -> Gemma4ImageProcessorPil:
    vision = config.vision_config
    return Gemma4ImageProcessorPil(
        patch_size=vision.patch_size,
        pooling_kernel_size=vision.pooling_kernel_size,
        max_soft_tokens=BUDGETS[0],
    )


GEMMA4 = Family(
    adapter=Gemma4Adapter,
    pictures=Gemma4Pictures,
    special_tokens=(
        "<pad>",
        "<|turn>",
        "<turn|>",
        "<|image>",
        "<image|>",
        "<|image|>",
        "<|video|>",
        "<|audio>",
        "<audio|>",
        "<|audio|>",
    ),
    named_tokens={
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "image_token": "<|image|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
        "audio_token": "<|audio|>",
    },
    end_token="<turn|>",
    pad_token="<pad>",
    chat_template=(
        "{% for message in messages %}<|turn>{{ message.role }}\n"
        "{% for part in message.content %}"
        "{% if part.type == 'image' %}\n\n<|image|>\n\n{% else %}{{ part.text | trim }}{% endif %}"
        "{% endfor %}<turn|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn>model\n{% endif %}"
    ),
    tiny_model=_tiny_gemma4,
    tiny_processor=_tiny_processor,
)
