"""The memory of a run as its configuration says, of a model that may not be loaded yet."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from papo.models import check_model, meta_model
from papo.training import RunMemory, TrainingSettings
from papo.training.microbatches import (
    MicrobatchCutter,
    repeated_prefix_tokens,
    shared_prefix_tokens,
)

_LORA = Path(__file__).resolve().parent / "conf" / "model" / "lora" / "language.yaml"


def run_memory(
    config: DictConfig,
    settings: TrainingSettings,
    *,
    model: Any,
    objective: Any,
    make_optimizer: Callable[..., Any],
    on_gpu: bool,
    shards: int,
    prompt_tokens: int,
    patches: int,
) -> RunMemory:
    """What the memory of a run depends on.

    Args:
        config: of the run.
        settings: its section `training`.
        model: Hugging Face's, loaded or on the meta device.
        objective: of the run.
        make_optimizer: of the run.
        on_gpu: it computes on GPUs.
        shards: devices that share one copy.
        prompt_tokens: of the longest prompt.
        patches: of its pictures.
    """
    repeats = config.model.scoring == "padded"
    return RunMemory(
        model=model,
        make_optimizer=make_optimizer,
        has_reference=objective.needs.reference,
        half_precision="16" in str(config.trainer.precision),
        checkpointing=config.model.gradient_checkpointing,
        head_chunk_size=config.model.head_chunk_size,
        on_gpu=on_gpu,
        shards=shards,
        offloads=bool(config.trainer.get("offload_while_sampling")),
        prompt_tokens=prompt_tokens,
        patches=patches,
        microbatches=MicrobatchCutter(
            prompts=settings.prompts_per_microbatch,
            tokens=settings.tokens_per_microbatch,
            count_tokens=repeated_prefix_tokens if repeats else shared_prefix_tokens,
        ),
        prompts_per_minibatch=settings.prompts_per_minibatch,
        num_responses=config.rollout.num_responses,
        max_response_tokens=config.rollout.max_response_tokens,
        views=1 + len(objective.needs.live_views),
        # Servers sample elsewhere; where one of them may be away, the policy does.
        sampled_rows=0
        if config.rollout.get("on_failure") == "stop"
        else min(
            config.rollout.max_rows, settings.prompts_per_rollout * config.rollout.num_responses
        ),
    )


def unloaded_run_memory(
    config: DictConfig, settings: TrainingSettings, **facts: Any
) -> tuple[str, RunMemory, Mapping[str, Callable[[], RunMemory]]]:
    """The same before anything is loaded: prompts are as long as the configuration lets them be.

    Returns:
        A name of the model; what its memory depends on; and the same of other settings, by what a command says.

    Raises:
        FileNotFoundError, ValueError: as of `papo.models.check_model`.
    """
    node = config.model
    found = check_model(
        path=node.path,
        hub_id=node.hub_id,
        revision=node.revision,
        trust_remote_code=node.trust_remote_code,
    )

    def with_adapters(lora: Any) -> Any:
        return meta_model(
            found.config, dtype=node.dtype, lora=lora, freeze_vision=node.freeze_vision
        )

    vision = found.config.vision_config
    patches = (node.max_pixels or 0) // vision.patch_size**2
    pictured = patches // vision.spatial_merge_size**2
    run = run_memory(
        config,
        settings,
        model=with_adapters(
            None if node.get("lora") is None else OmegaConf.to_container(node.lora)
        ),
        prompt_tokens=config.data.get("max_prompt_tokens") or pictured + 1,
        patches=patches,
        **facts,
    )
    instead: dict[str, Callable[[], RunMemory]] = {}
    if node.get("lora") is None:
        adapters = OmegaConf.to_container(OmegaConf.load(_LORA))
        instead["+model/lora=language"] = lambda: replace(run, model=with_adapters(adapters))
    size = sum(parameter.numel() for parameter in run.model.parameters())
    return f"{found.location} ({size / 1e9:.2f} B parameters)", run, instead
