"""What each family is to Hugging Face: its processor, and the inputs of a plain forward pass. A family adds a class here.

Not here: anything of papo's own way to read a prompt; that is what is compared with it.
"""

from unittest.mock import patch

import torch
from torch.nn.functional import pad
from transformers import (
    Gemma3Processor,
    Gemma4Processor,
    InternVLProcessor,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    Qwen3VLProcessor,
    SmolVLMProcessor,
)
from transformers.models.smolvlm import processing_smolvlm

from papo.models.families.gemma4 import padded_pictures
from papo.models.families.qwen_vl import grid_thw
from papo.models.families.tiles import put_together


class NoVideos:
    """Stands where a processor wants one of videos, which needs torchvision; no prompt here has a video."""

    model_input_names = ()
    merge_size = temporal_patch_size = 2


class Plain:
    """As the Qwen families are.

    Attributes:
        settings: of its processor.
        videos: whether it asks for one of videos as well.
        lora: linear layers of the vision tower.
        sizes: of its tiny model, where others show what it is.
    """

    processor_class = None
    settings = ()
    videos = True
    lora = ("qkv", "proj")
    sizes = ()

    def processor(self, policy):
        """The Hugging Face processor, of the policy's own tokenizer and image processor."""
        with patch.object(
            ProcessorMixin, "check_argument_for_proper_class", lambda self, name, value: type(value)
        ):
            return self.processor_class(
                image_processor=policy.encoder.image_processor,
                tokenizer=policy.encoder.tokenizer,
                **({"video_processor": NoVideos()} if self.videos else {}),
                chat_template=policy.encoder.tokenizer.chat_template,
                **dict(self.settings),
            )

    def pixels(self, group):
        """What a plain forward pass is given of the pictures."""
        return {"pixel_values": group.patches, "image_grid_thw": grid_thw(group.pictures)}

    def inputs(self, policy, group, sequence):
        """All inputs of a plain forward pass beside the token ids."""
        policy.model.model.rope_deltas = None  # cached state of an earlier call
        if group.patches is None:
            return {}
        types = (sequence == policy.adapter.image_token_id).long()
        return {**self.pixels(group), "mm_token_type_ids": types}


class Qwen25(Plain):
    processor_class = Qwen2_5_VLProcessor


class Qwen3(Plain):
    processor_class = Qwen3VLProcessor


class Qwen35(Qwen3):
    """Published checkpoints of Qwen3.5 name the processor of Qwen3-VL."""


class InternVL(Plain):
    processor_class = InternVLProcessor
    settings = (("image_seq_length", 4),)
    lora = ("q_proj", "linear_1")

    def pixels(self, group):
        return {"pixel_values": put_together(group.patches, group.pictures[0])}

    def inputs(self, policy, group, sequence):
        return {} if group.patches is None else self.pixels(group)


class SmolVLM(InternVL):
    processor_class = SmolVLMProcessor
    settings = (("image_seq_len", 4),)
    lora = ("q_proj", "proj")

    def processor(self, policy):
        with patch.object(processing_smolvlm, "num2words", str):  # for videos alone
            return super().processor(policy)

    def pixels(self, group):
        return {"pixel_values": put_together(group.patches, group.pictures[0])[None]}


class Gemma3(InternVL):
    processor_class = Gemma3Processor
    settings = (("image_seq_length", 4),)
    lora = ("q_proj", "fc1")
    videos = False

    def inputs(self, policy, group, sequence):
        if group.patches is None:
            return {}
        types = (sequence == policy.adapter.image_token_id).long()
        return {**self.pixels(group), "token_type_ids": types}


class NoSounds:
    """Stands where a processor wants one of audio."""

    model_input_names = ()


class Gemma4(Plain):
    processor_class = Gemma4Processor
    settings = (("feature_extractor", NoSounds()),)
    lora = ("linear", "embedding_projection")
    # The last layer reads the keys of the second.
    sizes = (("num_layers", 4),)

    def pixels(self, group):
        """Every picture is padded to the patches of 70 tokens."""
        pixels, places = padded_pictures(group.patches, group.pictures)
        more = (0, 0, 0, 70 * group.pictures[0].patches_per_token - pixels.shape[1])
        return {
            "pixel_values": pad(pixels, more),
            "image_position_ids": pad(places, more, value=-1),
        }


PLAIN = {
    "gemma3": Gemma3(),
    "gemma4": Gemma4(),
    "qwen2_5_vl": Qwen25(),
    "qwen3_vl": Qwen3(),
    "qwen3_5": Qwen35(),
    "internvl": InternVL(),
    "smolvlm": SmolVLM(),
}


def plain_logits(policy, group, ids):
    """What a plain forward pass of the Hugging Face model says of a response, without tokens that are never written."""
    plain = PLAIN[policy.model.config.model_type]
    sequence = torch.cat([group.prompt_ids, ids])[None]
    found = policy.model(input_ids=sequence, **plain.inputs(policy, group, sequence)).logits[0]
    logits = found[group.prompt_ids.shape[0] - 1 : -1] / policy.temperature
    logits[:, list(policy.banned_token_ids)] = -torch.inf
    return logits.log_softmax(-1)
