"""Gemma 3: every picture is one square of a fixed size, whose tokens see one another; some layers see a window."""

import math
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedModel
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from papo.models.families.family import (
    Family,
    ModelParts,
    TinySizes,
    require_parts,
)
from papo.models.families.pictures import FamilyPictures
from papo.models.families.tiles import TileAdapter, cut_tiles
from papo.models.families.windows import WindowedAdapter, require_windows
from papo.types import PictureLayout


def one_tile(config: Any) -> PictureLayout:
    """The layout of every picture."""
    rows = config.vision_config.image_size // config.vision_config.patch_size
    side = rows // math.isqrt(config.mm_tokens_per_image)
    return PictureLayout(rows=rows, columns=rows, token_side=side)


class Gemma3Adapter(WindowedAdapter, TileAdapter):
    """Reads prompts with a `Gemma3ForConditionalGeneration`."""

    parts = ModelParts(
        language="model.language_model",
        vision=("model.vision_tower", "model.multi_modal_projector"),
        vision_layers="model.vision_tower.encoder.layers",
        mergers=("model.multi_modal_projector",),
    )

    @staticmethod
    def check(config: Any) -> None:
        require_parts(config, language=("gemma3_text",), vision=("siglip_vision_model",))
        require_windows(config, refused=("attn_logit_softcapping", "use_bidirectional_attention"))

    @property
    def mutual_layers(self) -> tuple[str, ...]:
        return ("full_attention", "sliding_attention")

    @property
    def vision_token_ids(self) -> tuple[int, ...]:
        config = self.model.config
        ids = (config.image_token_index, config.boi_token_index, config.eoi_token_index)
        return tuple(sorted(map(int, ids)))

    @staticmethod
    def smallest_picture(config: Any) -> PictureLayout:
        return one_tile(config)

    @staticmethod
    def patch_channels(config: Any) -> int:
        return int(config.vision_config.num_channels * config.vision_config.patch_size**2)

    @staticmethod
    def most_patches(config: Any, max_pixels: int) -> tuple[int, int]:
        tile = one_tile(config)
        return tile.num_patches, tile.num_tokens

    @staticmethod
    def vision_flops(config: Any, picture: PictureLayout) -> int:
        vision, hidden = config.vision_config, config.vision_config.hidden_size
        patches = picture.num_patches
        block = 2 * (4 * hidden**2 + 2 * hidden * vision.intermediate_size)
        tower = 2 * hidden * Gemma3Adapter.patch_channels(config) * patches
        tower += vision.num_hidden_layers * (block * patches + 4 * hidden * patches**2)
        return int(tower + 2 * config.text_config.hidden_size * hidden * picture.num_tokens)


class Gemma3Pictures(FamilyPictures):
    """Pictures are stretched to the one size that the tower reads; without "pan and scan".

    Raises:
        ValueError: the processor makes pictures of another size than the model reads.
    """

    processor_class = Gemma3ImageProcessorPil
    processor_names = ("Gemma3ImageProcessor",)

    def __init__(self, processor: Any, tokenizer: Any, config: Any) -> None:
        super().__init__(processor, tokenizer, config)
        self.tile, self.side = one_tile(config), int(config.vision_config.image_size)
        size = (processor.size["height"], processor.size["width"])
        if size != (self.side, self.side):
            raise ValueError(
                f"the image processor makes pictures of {size} pixels, and the model reads {(self.side, self.side)}; "
                "use the preprocessor_config.json that came with the model"
            )
        processor.do_pan_and_scan = False
        self.placeholder_id = int(config.boi_token_index)
        self.begin, self.end = tokenizer.convert_ids_to_tokens(
            [config.boi_token_index, config.eoi_token_index]
        )

    def limit(self, *, min_pixels: int | None, max_pixels: int | None) -> None:
        pixels = self.side**2
        for name, bound, holds in (
            ("min_pixels", min_pixels, pixels >= (min_pixels or 0)),
            ("max_pixels", max_pixels, pixels <= (max_pixels or pixels)),
        ):
            if not holds:
                raise ValueError(
                    f"every picture of this family has {pixels} pixels; got model.{name}={bound}. Set it to null."
                )

    @property
    def limits(self) -> tuple[int, int]:
        return self.side**2, self.side**2

    def layout(self, height: int, width: int) -> PictureLayout:
        return self.tile

    def process(
        self, images: Sequence[Image.Image]
    ) -> tuple[Float[Tensor, "patch pixel"], tuple[PictureLayout, ...]]:
        processed = self.processor(images=list(images), return_tensors="pt")
        return cut_tiles(processed["pixel_values"], self.tile), (self.tile,) * len(images)

    def framed(self, rendered: str) -> str:
        # Line breaks join those of the text around, so they are put there before it is cut into tokens.
        return rendered.replace(self.begin, f"\n\n{self.begin}{self.end}\n\n")

    def prompt_ids(self, picture: PictureLayout) -> list[int]:
        return [self.placeholder_id, *[self.image_token_id] * picture.num_tokens]


def _tiny_gemma3(sizes: TinySizes, tokenizer: Any) -> PreTrainedModel:
    text = sizes.text_config(tokenizer)
    layers = ["full_attention" if index % 2 else "sliding_attention" for index in range(99)]
    ids = tokenizer.get_vocab()
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config={
                **text,
                "head_dim": sizes.head_channels,
                "query_pre_attn_scalar": sizes.head_channels,
                "sliding_window": 16,
                "layer_types": layers[: sizes.num_layers],
            },
            vision_config={
                "hidden_size": sizes.vision_hidden_size,
                "num_hidden_layers": sizes.vision_depth,
                "num_attention_heads": sizes.vision_num_heads,
                "intermediate_size": 2 * sizes.vision_hidden_size,
                "image_size": 56,
                "patch_size": 14,
                "vision_use_head": False,
            },
            mm_tokens_per_image=4,
            boi_token_index=ids["<start_of_image>"],
            eoi_token_index=ids["<end_of_image>"],
            image_token_index=ids["<image_soft_token>"],
            initializer_range=sizes.initializer_range,
            tie_word_embeddings=True,
        )
    )
    projection = model.model.multi_modal_projector.mm_input_projection_weight
    nn.init.normal_(projection, std=sizes.initializer_range)  # 0 by default
    return model


def _tiny_processor(config: Any) -> Gemma3ImageProcessorPil:
    side = config.vision_config.image_size
    return Gemma3ImageProcessorPil(size={"height": side, "width": side})


GEMMA3 = Family(
    adapter=Gemma3Adapter,
    pictures=Gemma3Pictures,
    special_tokens=(
        "<pad>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<start_of_image>",
        "<end_of_image>",
        "<image_soft_token>",
    ),
    named_tokens={
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    },
    end_token="<end_of_turn>",
    pad_token="<pad>",
    chat_template=(
        "{% for message in messages %}<start_of_turn>{{ message.role }}\n"
        "{% for part in message.content %}"
        "{% if part.type == 'image' %}<start_of_image>{% else %}{{ part.text | trim }}{% endif %}"
        "{% endfor %}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    tiny_model=_tiny_gemma3,
    tiny_processor=_tiny_processor,
)
