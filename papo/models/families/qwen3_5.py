"""Qwen3.5: of four language layers three are linear attention (gated delta net), one attends to all tokens.

Pictures, positions and the vision tower are those of Qwen3-VL without its deepstack. The prompt is read once all
the same: papo.models.recurrent_state. What was verified of the published models: docs/linear_attention.md.
"""

from typing import Any

from transformers import (
    DynamicCache,
    PreTrainedModel,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
)

from papo.models.families.family import Family, TinySizes
from papo.models.families.qwen_vl import (
    QWEN3_VL,
    QwenVLAdapter,
    QwenVLPictures,
    tiny_processor,
    tiny_settings,
)
from papo.models.recurrent_state import install_packed_recurrence, prompt_cache

FULL_ATTENTION_INTERVAL = 4


class Qwen35Adapter(QwenVLAdapter):
    """Reads prompts with a Qwen3.5 model.

    Args:
        model: a `Qwen3_5ForConditionalGeneration`.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        install_packed_recurrence(self.language_model)

    @property
    def packs(self) -> bool:
        """A layer of linear attention takes a packed row apart itself."""
        return True

    def new_cache(self) -> DynamicCache:
        return prompt_cache(self.model.config.get_text_config())


def _tiny_qwen3_5(sizes: TinySizes, tokenizer: Any) -> PreTrainedModel:
    text, rope, vision, tokens = tiny_settings(sizes, tokenizer)
    # Half of a head is turned (published: a quarter), in sections of time, height and width.
    half = sizes.head_channels // 4
    rope |= {
        "mrope_section": [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8],
        "mrope_interleaved": True,
        "partial_rotary_factor": 0.5,
    }
    last = sizes.num_layers - 1
    text |= {
        "head_dim": sizes.head_channels,
        "rope_parameters": rope,
        "linear_key_head_dim": sizes.head_channels,
        "linear_value_head_dim": sizes.head_channels,
        "linear_num_key_heads": sizes.num_key_value_heads,
        "linear_num_value_heads": sizes.num_heads,
        # As published, and in a model of fewer layers the last one.
        "layer_types": [
            "full_attention"
            if index % FULL_ATTENTION_INTERVAL == last % FULL_ATTENTION_INTERVAL
            else "linear_attention"
            for index in range(sizes.num_layers)
        ],
    }
    vision |= {"patch_size": 16, "num_position_embeddings": 256}
    return Qwen3_5ForConditionalGeneration(
        Qwen3_5Config(text_config=text, vision_config=vision, **tokens)
    )


QWEN3_5 = Family(
    adapter=Qwen35Adapter,
    pictures=QwenVLPictures,
    special_tokens=QWEN3_VL.special_tokens,
    end_token=QWEN3_VL.end_token,
    pad_token=QWEN3_VL.pad_token,
    # How that of the 4B and 9B models opens a response: it thinks unless told not to. Those of 0.8B and 2B think
    # only when told to.
    chat_template=QWEN3_VL.chat_template.replace(
        "<|im_start|>assistant\n{% endif %}",
        "<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
        "{% else %}<think>\n{% endif %}{% endif %}",
    ),
    tiny_model=_tiny_qwen3_5,
    tiny_processor=tiny_processor,
)
