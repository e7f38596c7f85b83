"""The memory of a run as its configuration says, of a model that may not be loaded yet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from papo.commands.building import instantiate
from papo.commands.constructors import CONF
from papo.models import check_model, meta_model
from papo.models.families import family_of
from papo.models.scoring import BackendChoice
from papo.parallel import Ranks
from papo.training import RunMemory, TrainingSettings, recomputes
from papo.training.microbatches import (
    MicrobatchCutter,
    repeated_prefix_tokens,
    shared_prefix_tokens,
)
from papo.views import CounterfactualView

_LORA = CONF / "model" / "lora" / "language.yaml"


def run_memory(
    config: DictConfig,
    settings: TrainingSettings,
    *,
    model: Any,
    checkpointing: bool,
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
        checkpointing: its activations are computed again in the backward pass.
        objective: of the run.
        make_optimizer: of the run.
        on_gpu: it computes on GPUs.
        shards: devices that share one copy.
        prompt_tokens: of the longest prompt.
        patches: of its pictures.
    """
    scoring = BackendChoice(scoring=config.model.scoring, config=model.config)
    return RunMemory(
        model=model,
        make_optimizer=make_optimizer,
        has_reference=objective.needs.reference,
        half_precision="16" in str(config.trainer.precision),
        checkpointing=checkpointing,
        head_chunk_size=config.model.head_chunk_size,
        on_gpu=on_gpu,
        shards=shards,
        offloads=bool(config.trainer.get("offload_while_sampling")),
        intervenes=CounterfactualView.name in objective.needs.views,
        prompt_tokens=prompt_tokens,
        patches=patches,
        microbatches=MicrobatchCutter(
            prompts=settings.prompts_per_microbatch,
            tokens=settings.tokens_per_microbatch,
            count_tokens=shared_prefix_tokens if scoring.shares_prefix else repeated_prefix_tokens,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class UnloadedRun:
    """What is known of a run's memory before anything is loaded.

    Attributes:
        name: of the model, for people.
        memory: what its memory depends on.
        instead: what makes it that of other settings, by what a command says.
        notes: what was decided, and why.
    """

    name: str
    memory: RunMemory
    instead: Mapping[str, Callable[[RunMemory], RunMemory]]
    notes: tuple[str, ...]


def unloaded_run_memory(
    config: DictConfig,
    settings: TrainingSettings,
    *,
    available: int | None,
    ranks: Ranks,
    **facts: Any,
) -> UnloadedRun:
    """The same before anything is loaded: prompts are as long as the configuration lets them be.

    Where `model.gradient_checkpointing` is `auto`, it is decided here whether passes compute activations again.

    Args:
        config: of the run.
        settings: its section `training`.
        **facts: as of `run_memory`.
        available: bytes of this process's device that are free; None where unknown.
        ranks: the processes of the run; all compute again where one of them must.

    Raises:
        FileNotFoundError, ValueError: as of `papo.models.check_model`.
    """
    node = config.model
    location, found = _found(node)

    def with_adapters(lora: Any) -> Any:
        return meta_model(
            found, dtype=node.get("dtype", "float32"), lora=lora, freeze_vision=node.freeze_vision
        )

    patches, pictured = family_of(found).adapter.most_patches(found, node.max_pixels or 0)
    run = run_memory(
        config,
        settings,
        model=with_adapters(
            None if node.get("lora") is None else OmegaConf.to_container(node.lora)
        ),
        checkpointing=node.gradient_checkpointing is True,
        prompt_tokens=config.data.get("max_prompt_tokens") or pictured + 1,
        patches=patches,
        **facts,
    )
    instead: dict[str, Callable[[RunMemory], RunMemory]] = {}
    if node.get("lora") is None:
        adapters = OmegaConf.to_container(OmegaConf.load(_LORA))
        instead["+model/lora=language"] = lambda one: replace(one, model=with_adapters(adapters))
    notes: tuple[str, ...] = ()
    # Two-pass scoring cannot.
    if node.gradient_checkpointing == "auto" and node.scoring != "twopass":
        everyone = ranks.gather(recomputes(run, available))
        must, why = next((one for one in everyone if one[0]), everyone[0])
        run, notes = replace(run, checkpointing=must), (why,)
    size = sum(parameter.numel() for parameter in run.model.parameters())
    name = f"{location} ({size / 1e9:.2f} B parameters)"
    return UnloadedRun(name=name, memory=run, instead=instead, notes=notes)


def _found(node: DictConfig) -> tuple[str, Any]:
    """Where a model comes from, and its configuration; a random one is made to see how large it is."""
    if "hub_id" not in node:
        return f"random {node.get('family', 'model')}", instantiate(node).model.config
    found = check_model(
        path=node.path,
        hub_id=node.hub_id,
        revision=node.revision,
        trust_remote_code=node.trust_remote_code,
    )
    return found.location, found.config
