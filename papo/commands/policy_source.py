"""Where a finished policy comes from: a training run, a Hugging Face folder, or a model of conf/.

Shared by `evaluate` and the scripts; knows Hydra's nodes, so it belongs to the commands.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from papo.commands.building import instantiate
from papo.commands.constructors import read_run_config
from papo.evaluation.run.checkpoint_files import check_hugging_face_folder
from papo.models import check_model, meta_model
from papo.training import (
    BEST,
    available_bytes,
    best_checkpoint,
    check_checkpoint,
    is_checkpoint_folder,
    load_trained_policy,
    newest_checkpoint,
    read_checkpoint,
    readable_bytes,
)

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    """What it takes to load a policy.

    Attributes:
        model: the node of the configuration that builds it.
        trained: the checkpoint whose weights it gets; None for the weights `model` loads.
        location: what to call it in files and messages.
    """

    model: DictConfig
    trained: Path | None
    location: str


def find_policy(
    checkpoint: str | None, model: DictConfig, *, changed: Collection[str] = ()
) -> PolicySource:
    """Says where the policy is, without reading weights.

    Args:
        checkpoint: a training run's folder (its newest checkpoint), RUN_DIR/best, a checkpoint under checkpoints/, a
            Hugging Face folder, or None for the model itself.
        model: the `model` node of the configuration.
        changed: keys of it that the command line set; these also hold for the model of a training run.

    Raises:
        FileNotFoundError: nothing of the kind is there, or a file of it is missing.
        ValueError: a training run brings its own model, and another one was chosen; or what the run
            brings constructs what it must not.
    """
    if checkpoint is None:
        path = model.get("path")
        if path is not None:
            check_hugging_face_folder(Path(path).expanduser(), key="model.path")
        location = path or model.get("hub_id") or f"random {model.get('family', 'model')}"
        return PolicySource(model=model, trained=None, location=str(location))
    path = Path(checkpoint).expanduser()
    if _is_checkpoint(path) or run_of(path) is not None:
        trained = trained_checkpoint(path)
        changes = {key: OmegaConf.select(model, key) for key in ("temperature", *changed)}
        node = folder_model(trained.parent.parent, changes)
        return PolicySource(model=node, trained=trained, location=str(trained))
    check_hugging_face_folder(path, key="checkpoint")
    if "path" not in model:
        raise ValueError(
            f"model._target_={model.get('_target_')} builds its own weights, so it cannot load "
            f"checkpoint={checkpoint}; choose a model= that has a path, e.g. model=qwen2_5_vl_3b"
        )
    node = model.copy()
    OmegaConf.update(node, "path", str(path))
    return PolicySource(model=node, trained=None, location=str(path))


def trained_checkpoint(path: Path) -> Path:
    """Returns the newest checkpoint of a run folder, the best one of RUN_DIR/best, or the checkpoint itself.

    Raises:
        FileNotFoundError: there is none, or it does not lie inside a run folder.
    """
    if (run := run_of(path)) is not None and run != path:
        path = best_checkpoint(run)
    if path.is_dir() and not _is_checkpoint(path):
        found = newest_checkpoint(path / "checkpoints")
        if found is None:
            raise FileNotFoundError(
                f"{path} holds no checkpoint under checkpoints/; let the run write its first one, "
                "or name another folder"
            )
        path = found
    if not _is_checkpoint(path) or not (path.parent.parent / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{path} is no checkpoint inside a run folder (RUN_DIR/checkpoints/rollout_*.ckpt beside "
            "RUN_DIR/config.yaml, which says how to build the model)"
        )
    return path


def run_of(path: Path) -> Path | None:
    """The run folder that a path names, as RUN_DIR or as RUN_DIR/best; None where it names none."""
    if (path / "checkpoints").is_dir():
        return path
    names_best = path.name == BEST and not path.exists()
    return path.parent if names_best and (path.parent / "checkpoints").is_dir() else None


def _is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint: the file of one process, or the folder of several."""
    return path.is_file() or is_checkpoint_folder(path)


def folder_model(folder: Path, changes: Mapping[str, Any]) -> DictConfig:
    """Returns the `model` node of a folder that train.py or evaluate.py wrote.

    Args:
        folder: may be a stranger's.
        changes: keys of the node that the user sets; what the folder says of them is not looked at.

    Raises:
        FileNotFoundError, ValueError: its configuration is missing, or refused (constructors.py).
    """
    config = read_run_config(
        folder / "config.yaml", keys=("model",), given=[f"model.{key}" for key in changes]
    )
    if not isinstance(config["model"], dict) or "_target_" not in config["model"]:
        raise ValueError(f"{folder / 'config.yaml'} does not say how to build its model")
    node: DictConfig = OmegaConf.create(config["model"])
    for key, value in changes.items():
        OmegaConf.update(node, key, value, force_add=True)
    return node


def check_policy(source: PolicySource, device: torch.device = _CPU) -> None:
    """Says what is missing or damaged before a model is loaded or downloaded.

    Args:
        source: of the policy.
        device: that it will compute on.

    Raises:
        FileNotFoundError, ValueError, MemoryError: with the override that helps.
    """
    if source.trained is not None:
        check_checkpoint(source.trained)
    model = source.model
    if "hub_id" in model:
        found = check_model(
            path=model.path,
            hub_id=model.hub_id,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
        )
        weights = sum(p.nbytes for p in meta_model(found.config, dtype=model.dtype).parameters())
        for place in {_CPU, device}:
            free = available_bytes(place)
            if free is not None and weights > free:
                raise MemoryError(
                    f"the weights of {found.location} take {readable_bytes(weights)}, and "
                    f"{readable_bytes(free)} of {place} are free. Use a larger machine, or a smaller model."
                )


def load_policy(source: PolicySource) -> Any:
    """Returns the policy, on the CPU, in the precision it was trained in.

    Raises:
        ValueError: the frozen weights are not those of the run.
    """
    policy = instantiate(source.model)
    if source.trained is not None:
        # The optimiser's moments are twice the weights, and nobody asks for them.
        state = read_checkpoint(source.trained, only=("state_dict",))
        load_trained_policy(policy, state)
    return policy
