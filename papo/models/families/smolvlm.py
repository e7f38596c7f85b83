"""SmolVLM2: a picture enlarged to whole square tiles, each with a marker of its row and column, and a thumbnail."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.models.smolvlm.image_processing_pil_smolvlm import (
    MAX_IMAGE_SIZE,
    SmolVLMImageProcessorPil,
    _resize_output_size_rescale_to_max_len,
    _resize_output_size_scale_below_upper_bound,
)
from transformers.models.smolvlm.processing_smolvlm import (
    DEFAULT_CHAT_TEMPLATE,
    get_image_prompt_string,
)

from papo.models.families.family import (
    Family,
    ModelParts,
    TinySizes,
    VisionFeatures,
    require_parts,
)
from papo.models.families.pictures import FamilyPictures
from papo.models.families.tiles import TileAdapter, cut_tiles, put_together
from papo.types import PictureLayout


def one_tile(config: Any) -> PictureLayout:
    """The layout of a picture that is one tile."""
    rows = config.vision_config.image_size // config.vision_config.patch_size
    return PictureLayout(rows=rows, columns=rows, token_side=config.scale_factor)


class SmolVLMAdapter(TileAdapter):
    """Reads prompts with a `SmolVLMForConditionalGeneration`."""

    parts = ModelParts(
        language="model.text_model",
        vision=("model.vision_model", "model.connector"),
        vision_layers="model.vision_model.encoder.layers",
        mergers=("model.connector",),
    )

    @staticmethod
    def check(config: Any) -> None:
        require_parts(config, language=("llama",), vision=("smolvlm_vision",))

    @property
    def vision_token_ids(self) -> tuple[int, ...]:
        return (self.image_token_id,)

    def vision_features(
        self, patches: Float[Tensor, "patch pixel"], pictures: Sequence[PictureLayout]
    ) -> VisionFeatures:
        # Not get_image_features, which takes a picture that is 0 everywhere for padding.
        tiles = put_together(patches, pictures[0]).to(self.model.dtype)
        seen = self.vision_tower(pixel_values=tiles, return_dict=True).last_hidden_state
        return VisionFeatures(tokens=self.model.model.connector(seen).flatten(0, 1))

    @staticmethod
    def smallest_picture(config: Any) -> PictureLayout:
        return one_tile(config)

    @staticmethod
    def patch_channels(config: Any) -> int:
        return int(config.vision_config.num_channels * config.vision_config.patch_size**2)

    @staticmethod
    def most_patches(config: Any, max_pixels: int) -> tuple[int, int]:
        tile = one_tile(config)
        side = max(1, math.isqrt(max_pixels) // config.vision_config.image_size)
        tiles = side**2 + (side > 1)
        return tiles * tile.num_patches, tiles * tile.num_tokens

    @staticmethod
    def vision_flops(config: Any, picture: PictureLayout) -> int:
        vision, hidden = config.vision_config, config.vision_config.hidden_size
        patches = picture.rows * picture.columns
        block = 2 * (4 * hidden**2 + 2 * hidden * vision.intermediate_size)
        tower = 2 * hidden * SmolVLMAdapter.patch_channels(config) * patches
        tower += vision.num_hidden_layers * (block * patches + 4 * hidden * patches**2)
        connector = 2 * config.text_config.hidden_size * hidden * patches
        return int(picture.num_tiles * (tower + connector))


class SmolVLMPictures(FamilyPictures):
    """Pictures are enlarged or shrunk to one length of their longer side, so that small ones have many tiles too.

    Raises:
        ValueError: the processor makes tiles of another size than the model reads.
    """

    processor_class = SmolVLMImageProcessorPil
    processor_names = ("SmolVLMImageProcessor",)

    def __init__(self, processor: Any, tokenizer: Any, config: Any) -> None:
        super().__init__(processor, tokenizer, config)
        self.tile, self.tile_pixels = one_tile(config), int(config.vision_config.image_size)
        self.read_pixels = self.tile.rows * int(config.vision_config.patch_size)
        if processor.max_image_size["longest_edge"] != self.tile_pixels:
            raise ValueError(
                f"the image processor makes tiles of {processor.max_image_size['longest_edge']} pixels, and the model "
                f"reads tiles of {self.tile_pixels}; use the preprocessor_config.json that came with the model"
            )

    def limit(self, *, min_pixels: int | None, max_pixels: int | None) -> None:
        if max_pixels is not None:
            tiles = max(1, math.isqrt(max_pixels) // self.tile_pixels)
            self.processor.size = {"longest_edge": tiles * self.tile_pixels}
        least, _ = self.limits
        if min_pixels is not None and min_pixels > least:
            raise ValueError(
                f"this family's pictures have {least} pixels or more, as long as their longer side is "
                f"{self.processor.size['longest_edge']}; got model.min_pixels={min_pixels}. Set it to null, or "
                "model.max_pixels higher."
            )

    @property
    def limits(self) -> tuple[int, int]:
        longest = self.processor.size["longest_edge"]
        return longest * self.tile_pixels, longest**2

    def layout(self, height: int, width: int) -> PictureLayout:
        tile = self.tile_pixels
        longest = self.processor.size["longest_edge"]
        height, width = _resize_output_size_rescale_to_max_len(height, width, max_len=longest)
        most: Any = MAX_IMAGE_SIZE  # transformers annotates it as a dictionary
        height, width = _resize_output_size_scale_below_upper_bound(height, width, max_len=most)
        aspect, wide = width / height, width >= height
        if wide:
            columns = math.ceil(width / tile)
            rows = math.ceil(int(columns * tile / aspect) / tile)
        else:
            rows = math.ceil(height / tile)
            columns = math.ceil(int(rows * tile * aspect) / tile)
        if not self.processor.do_image_splitting:
            rows = columns = 1
        return self.tile.tiled(rows, columns, thumbnail=rows * columns > 1)

    def process(
        self, images: Sequence[Image.Image]
    ) -> tuple[Float[Tensor, "patch pixel"], tuple[PictureLayout, ...]]:
        # One by one: together they would be padded to one number of tiles.
        tiles = [
            self.processor(images=[image], return_tensors="pt")["pixel_values"][0]
            for image in images
        ]
        pictures = tuple(self.layout(image.height, image.width) for image in images)
        assert [each.num_tiles for each in pictures] == [len(each) for each in tiles]
        # The tower reads whole patches; what is left of a tile behind its last one (2.2B: 6 of 384 pixels) it never sees.
        read = torch.cat(tiles)[..., : self.read_pixels, : self.read_pixels]
        return cut_tiles(read, self.tile), pictures

    def prompt_ids(self, picture: PictureLayout) -> list[int]:
        # It begins and ends with a special token, so that it is cut into the same tokens in any text.
        rows, columns = (picture.tile_rows, picture.tile_columns) if picture.thumbnail else (0, 0)
        text = get_image_prompt_string(
            rows,
            columns,
            self.tile.num_tokens,
            fake_token_around_image="<fake_token_around_image>",
            image_token="<image>",
            global_image_token="<global-img>",
        )
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _tiny_smolvlm(sizes: TinySizes, tokenizer: Any) -> PreTrainedModel:
    rope = {"rope_type": "default", "rope_theta": 1e4}
    text = {**sizes.text_config(tokenizer), "model_type": "llama", "rope_parameters": rope}
    return SmolVLMForConditionalGeneration(
        SmolVLMConfig(
            text_config={**text, "head_dim": sizes.head_channels},
            vision_config={
                "hidden_size": sizes.vision_hidden_size,
                "num_hidden_layers": sizes.vision_depth,
                "num_attention_heads": sizes.vision_num_heads,
                "intermediate_size": 2 * sizes.vision_hidden_size,
                "image_size": 56,
                "patch_size": 14,
                "initializer_range": sizes.initializer_range,
            },
            image_token_id=tokenizer.get_vocab()["<image>"],
            scale_factor=2,
            tie_word_embeddings=True,
        )
    )


def _tiny_processor(config: Any) -> SmolVLMImageProcessorPil:
    side = config.vision_config.image_size
    return SmolVLMImageProcessorPil(
        size={"longest_edge": 3 * side}, max_image_size={"longest_edge": side}
    )


SMOLVLM = Family(
    adapter=SmolVLMAdapter,
    pictures=SmolVLMPictures,
    special_tokens=(
        "<|im_start|>",
        "<|im_end|>",
        "<end_of_utterance>",
        "<fake_token_around_image>",
        "<global-img>",
        "<image>",
        *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
    ),
    end_token="<end_of_utterance>",
    pad_token="<|im_end|>",
    chat_template=DEFAULT_CHAT_TEMPLATE,
    tiny_model=_tiny_smolvlm,
    tiny_processor=_tiny_processor,
)
