"""InternVL3 and InternVL3.5: a picture in square tiles and a thumbnail, positions one after another."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import InternVLConfig, InternVLForConditionalGeneration, PreTrainedModel
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)

from papo.models.families.family import (
    Family,
    ModelParts,
    TinySizes,
    require_parts,
)
from papo.models.families.pictures import FamilyPictures
from papo.models.families.tiles import TileAdapter, cut_tiles
from papo.types import PictureLayout


def one_tile(config: Any) -> PictureLayout:
    """The layout of a picture that is one tile."""
    vision = config.vision_config
    rows, columns = (
        length // side for length, side in zip(vision.image_size, vision.patch_size, strict=True)
    )
    return PictureLayout(rows=rows, columns=columns, token_side=round(1 / config.downsample_ratio))


class InternVLAdapter(TileAdapter):
    """Reads prompts with an `InternVLForConditionalGeneration`."""

    parts = ModelParts(
        language="model.language_model",
        vision=("model.vision_tower", "model.multi_modal_projector"),
        vision_layers="model.vision_tower.encoder.layer",
        mergers=("model.multi_modal_projector",),
    )
    attention_name = "attention"
    num_skipped = 1  # the class token

    @staticmethod
    def check(config: Any) -> None:
        require_parts(config, language=("qwen2", "qwen3"), vision=("internvl_vision",))

    @property
    def vision_token_ids(self) -> tuple[int, ...]:
        return (self.image_token_id,)

    @staticmethod
    def queries_and_keys(attention: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
        queries = attention.q_norm(attention.q_proj(hidden))
        return queries, attention.k_norm(attention.k_proj(hidden))

    @staticmethod
    def smallest_picture(config: Any) -> PictureLayout:
        return one_tile(config)

    @staticmethod
    def patch_channels(config: Any) -> int:
        side, other = config.vision_config.patch_size
        return int(config.vision_config.num_channels * side * other)

    @staticmethod
    def most_patches(config: Any, max_pixels: int) -> tuple[int, int]:
        tile, (height, width) = one_tile(config), config.vision_config.image_size
        tiles = max(1, max_pixels // (height * width))
        tiles += tiles > 1
        return tiles * tile.num_patches, tiles * tile.num_tokens

    @staticmethod
    def vision_flops(config: Any, picture: PictureLayout) -> int:
        vision, hidden = config.vision_config, config.vision_config.hidden_size
        patches = picture.rows * picture.columns
        block = 2 * (4 * hidden**2 + 2 * hidden * vision.intermediate_size)
        depth, read = vision.num_hidden_layers, patches + 1
        tower = 2 * hidden * InternVLAdapter.patch_channels(config) * patches
        tower += depth * (block * read + 4 * hidden * read**2)
        text, merged = config.text_config.hidden_size, hidden * picture.patches_per_token
        projector = 2 * text * (merged + text) * patches // picture.patches_per_token
        return int(picture.num_tiles * (tower + projector))


class InternVLPictures(FamilyPictures):
    """The tiles whose aspect is nearest the picture's, row by row, then a thumbnail if they are several.

    Raises:
        ValueError: the processor makes tiles of another size than the model reads.
    """

    processor_class = GotOcr2ImageProcessorPil
    processor_names = ("GotOcr2ImageProcessor",)

    def __init__(self, processor: Any, tokenizer: Any, config: Any) -> None:
        super().__init__(processor, tokenizer, config)
        size, reads = (processor.size["height"], processor.size["width"]), config.vision_config
        if size != tuple(reads.image_size):
            raise ValueError(
                f"the image processor makes tiles of {size} pixels, and the model reads tiles of "
                f"{tuple(reads.image_size)}; use the preprocessor_config.json that came with the model"
            )
        # Published processors leave that to InternVLProcessor, which sets it.
        processor.crop_to_patches = True
        self.tile, self.side = one_tile(config), int(reads.patch_size[0])
        self.bounds = tokenizer.convert_tokens_to_ids(["<img>", "</img>"])

    def limit(self, *, min_pixels: int | None, max_pixels: int | None) -> None:
        tile = self.processor.size["height"] * self.processor.size["width"]
        if max_pixels is not None:
            self.processor.max_patches = max(1, max_pixels // tile)
        if min_pixels is not None:
            self.processor.min_patches = min(-(-min_pixels // tile), self.processor.max_patches)

    @property
    def limits(self) -> tuple[int, int]:
        tile = self.processor.size["height"] * self.processor.size["width"]
        return self.processor.min_patches * tile, self.processor.max_patches * tile

    def layout(self, height: int, width: int) -> PictureLayout:
        size, processor = self.processor.size, self.processor
        columns, rows = get_optimal_tiled_canvas(
            (height, width),
            (size["height"], size["width"]),
            processor.min_patches,
            processor.max_patches,
        )
        return self.tile.tiled(rows, columns, thumbnail=rows * columns > 1)

    def process(
        self, images: Sequence[Image.Image]
    ) -> tuple[Float[Tensor, "patch pixel"], tuple[PictureLayout, ...]]:
        processed = self.processor(images=list(images), return_tensors="pt")
        pictures = tuple(self.layout(image.height, image.width) for image in images)
        assert [each.num_tiles for each in pictures] == list(processed["num_patches"])
        return cut_tiles(processed["pixel_values"], self.tile), pictures

    def prompt_ids(self, picture: PictureLayout) -> list[int]:
        start, end = self.bounds
        return [start, *[self.image_token_id] * picture.num_tokens, end]


def _tiny_internvl(sizes: TinySizes, tokenizer: Any) -> PreTrainedModel:
    rope = {"rope_type": "default", "rope_theta": 1e4}
    text = {**sizes.text_config(tokenizer), "model_type": "qwen3", "rope_parameters": rope}
    model = InternVLForConditionalGeneration(
        InternVLConfig(
            text_config={**text, "head_dim": sizes.head_channels},
            vision_config={
                "hidden_size": sizes.vision_hidden_size,
                "num_hidden_layers": sizes.vision_depth,
                "num_attention_heads": sizes.vision_num_heads,
                "intermediate_size": 2 * sizes.vision_hidden_size,
                "image_size": [56, 56],
                "patch_size": [14, 14],
                "initializer_range": sizes.initializer_range,
            },
            image_token_id=tokenizer.get_vocab()["<IMG_CONTEXT>"],
            image_seq_length=4,
            tie_word_embeddings=True,
        )
    )
    embeddings = model.model.vision_tower.embeddings
    for learned in (embeddings.cls_token, embeddings.position_embeddings):  # 0 by default
        nn.init.normal_(learned, std=sizes.initializer_range)
    return model


def _tiny_processor(config: Any) -> GotOcr2ImageProcessorPil:
    height, width = config.vision_config.image_size
    return GotOcr2ImageProcessorPil(size={"height": height, "width": width})


INTERNVL = Family(
    adapter=InternVLAdapter,
    pictures=InternVLPictures,
    special_tokens=(
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<img>",
        "</img>",
        "<IMG_CONTEXT>",
        "<video>",
    ),
    named_tokens={
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
    end_token="<|im_end|>",
    pad_token="<|endoftext|>",
    chat_template=(
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{% for part in message.content %}"
        "{% if part.type == 'image' %}<IMG_CONTEXT>\n{% else %}{{ part.text }}{% endif %}"
        "{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    tiny_model=_tiny_internvl,
    tiny_processor=_tiny_processor,
)
