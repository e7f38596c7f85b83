"""The attention that a model's configuration names, for modules whose own configuration names ours."""

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def plain_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """What `module.plain_config` asks for."""
    config, module.config = module.config, module.plain_config
    eager = sys.modules[type(module).__module__].eager_attention_forward
    attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
        module.config._attn_implementation, eager
    )
    try:
        return attend(module, query, key, value, attention_mask, **kwargs)
    finally:
        module.config = config
