"""Everything of an evaluation that exists before a model is loaded: built from the configuration, and checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from papo.commands import building
from papo.commands.benchmarks import make_benchmarks
from papo.commands.building import instantiate
from papo.commands.chosen_device import choose_device, choose_dtype
from papo.commands.constructors import plain
from papo.commands.policy_source import PolicySource, find_policy, run_of
from papo.evaluation import Benchmark, GroundingAudit, PerceptionProbe
from papo.evaluation.settings import EvaluationSettings, check_num_responses, evaluation_settings
from papo.models import text_family
from papo.rollout import check_sampling
from papo.training import check_seed, check_threads
from papo.types import IMAGE, shown
from papo.views import View

KNOWN_KEYS = (
    *("checkpoint", "model", "data", "benchmark", "views", "probe", "audit", "masking", "fidelity"),
    *(
        "rollout",
        "num_masks",
        "evaluation",
        "seed",
        "device",
        "devices",
        "num_nodes",
        "dtype",
        "num_threads",
        "run_dir",
        "resume",
        "allow",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything of an evaluation that exists before a model is loaded, checked."""

    config: DictConfig
    settings: EvaluationSettings
    num_responses: int
    seed: int
    device: torch.device
    dtype: torch.dtype | None
    source: PolicySource
    benchmarks: tuple[Benchmark, ...]
    views: tuple[View, ...]
    probe: PerceptionProbe | None
    audit: GroundingAudit | None
    make_engine: Callable[..., Any]


def make_plan(config: DictConfig) -> Plan:
    """Checks every setting, finds the checkpoint, and builds what needs no model.

    `config.model` becomes the model that is evaluated.

    Raises:
        ValueError: an impossible setting, with its key.
        FileNotFoundError: no such checkpoint, or a file of it is missing.
    """
    check_masks_of_views(config)
    building.check_known_keys(config, KNOWN_KEYS)
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"{missing[0]} has no default; set {missing[0]}=")
    num_responses = check_num_responses(config.rollout.num_responses)
    if config.rollout.get("ahead"):
        raise ValueError(
            "an evaluation has no updates to be ahead of; got rollout.ahead="
            f"{config.rollout.ahead}. Set rollout.ahead=0."
        )
    check_everything_is_read(config)
    settings = evaluation_settings(plain(config.evaluation))
    settings.check_pass_at(num_responses)
    check_threads(config.num_threads)
    check_sampling(
        temperature=config.rollout.temperature,
        top_p=config.rollout.top_p,
        top_k=config.rollout.top_k,
        max_response_tokens=config.rollout.max_response_tokens,
    )
    device = choose_device(config.device)
    if config.audit:
        check_audited(config.checkpoint or config.model.get("path"))
    source = find_policy(config.checkpoint, config.model, changed=changed_model_keys(config))
    OmegaConf.update(config, "model", source.model, merge=False)
    audit: GroundingAudit | None = instantiate(config.audit) if config.audit else None
    return Plan(
        config=config,
        settings=settings,
        num_responses=num_responses,
        seed=check_seed(config.seed),
        device=device,
        dtype=choose_dtype(config.dtype, device),
        source=source,
        benchmarks=tuple(make_benchmarks(config.benchmark)),
        views=make_views(config.views, {} if audit is None else audit.views),
        probe=instantiate(config.probe) if config.probe else None,
        audit=audit,
        make_engine=instantiate(config.rollout, without=("num_responses", "ahead")),
    )


def check_audited(location: str | None) -> None:
    """Returns where what is audited may have read pictures; says so before anything else that its folder lacks.

    Raises:
        ValueError: it is a model that reads text alone.
    """
    family = None if location is None else text_family(Path(location).expanduser())
    if family is not None:
        raise ValueError(
            "an audit of what a policy grounds compares what it says with and without its picture, so it needs a "
            f"vision-language model; got {location}, a model of family {shown(family)!r} that reads text alone. Set "
            "checkpoint= or model.path= to one that reads pictures."
        )


def make_views(node: DictConfig, audited: Mapping[str, View]) -> tuple[View, ...]:
    """Builds the views of `views`, and adds those of an audit that are not among them.

    Raises:
        ValueError: there is none, two have one name, or an audit lacks the picture itself.
    """
    views = tuple(instantiate(one) for one in node.values())
    if audited and IMAGE not in (view.name for view in views):
        raise ValueError(
            "an audit compares other views with the picture itself; got "
            f"{', '.join(view.name for view in views) or 'none'}. Set views=image, vision or blind."
        )
    views += tuple(one for one in audited.values() if one.name not in {v.name for v in views})
    names = [view.name for view in views]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"an evaluation has at least one view, each with its own name; got {', '.join(names) or 'none'}. "
            "Set views="
        )
    return views


def changed_model_keys(config: DictConfig) -> list[str]:
    """Keys of `model` that the command line set, without the group.

    Raises:
        ValueError: `model=` was chosen beside a training run, which brings its own model.
    """
    overrides = changes()
    chosen = [text for text in overrides if text.startswith("model=")]
    checkpoint = None if config.checkpoint is None else Path(config.checkpoint).expanduser()
    if chosen and checkpoint is not None and run_of(checkpoint) is not None:
        raise ValueError(
            f"the training run {checkpoint} brings its own model; drop {chosen[0]} (single keys, e.g. "
            "model.max_pixels=, may be set)"
        )
    return [text.split("=")[0].removeprefix("model.") for text in overrides if text[:6] == "model."]


def check_masks_of_views(config: DictConfig) -> None:
    """Refuses a mask that lacks what the views take from `masking`.

    Raises:
        ValueError: names the mask and what to choose.
    """
    try:
        plain(config.views)
    except InterpolationKeyError as error:
        chosen = HydraConfig.get().runtime.choices["masking"]
        raise ValueError(
            "the views masked_R of views=vision hide cells with ratios of their own, which takes a "
            f"random mask; got masking={chosen} ({str(error).splitlines()[0]}). Choose masking=random, "
            f"random_raw or random_token; views=blind blackens everything, and masking={chosen} serves "
            "probe=perception in a run with other views."
        ) from error


def check_everything_is_read(config: DictConfig) -> None:
    """Refuses settings of the command line that the chosen benchmark, views and probe leave unread.

    Raises:
        ValueError: names one.
    """
    path = config.data.path
    if path is not None and config.benchmark.get("path") != path:
        raise ValueError(
            f"data.path={path} is not read: the benchmark has no files, or benchmark.path names others. "
            "Choose a benchmark of files, e.g. benchmark=local, or drop data.path"
        )
    if unread := sorted({*config.data} - {"path"}):
        raise ValueError(
            f"data.{unread[0]} is not read: an evaluation has several sets of problems, each with settings of its "
            f"own. Set benchmark.sets.{next(iter(config.benchmark.get('sets') or ['KEY']))}.problems.{unread[0]}="
        )
    readers = OmegaConf.to_yaml(OmegaConf.masked_copy(config, ["views", "probe", "audit"]))
    for key in (text.split("=")[0] for text in changes()):
        group = key.split(".")[0]
        if group not in ("masking", "fidelity", "num_masks"):
            continue
        # A mask reads fidelity; whoever reads the least of a mask reads the choice of it.
        names = [f"${{{key}}}", f"${{{group}}}"]
        if key == "masking" or group == "fidelity":
            names = ["${masking"]
        if not any(name in readers for name in names):
            raise ValueError(
                f"{key} is set and not read: views=image has no mask, views=vision has ratios of its own. "
                f"Choose probe=perception (or views=vision), or drop {key}"
            )


def changes() -> list[str]:
    """What the command line set, `key=value`."""
    return [text.lstrip("+~") for text in HydraConfig.get().overrides.task]
