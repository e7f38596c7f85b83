"""Settings of PerceptionLab's 0.35 M-parameter model are not what a model of one's own is trained with by oversight."""

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from papo.commands.overriding import overridden_keys, shell_command
from papo.lab import WARM_START

LAB_PROBLEMS = "papo.lab.PerceptionLabProblems"
OF_THE_LAB = {
    "objective": ("papo_jsd", "objective.gamma"),
    "training": ("lab", "training.num_rollouts"),
    "rollout": ("lab", "rollout.max_response_tokens"),
    "optimizer": ("lab_adamw", "optimizer.lr"),
}
"""Group: what conf/train.yaml chooses for the lab, and the key of it that another model would suffer most from."""


def check_settings_are_meant(config: DictConfig) -> None:
    """Refuses to train another model than the lab's, on other data, with what was left of the lab's settings.

    Raises:
        ValueError: names the settings, and the command that is meant.
    """
    if not HydraConfig.initialized() or not _is_ones_own(config):
        return
    choices, given = HydraConfig.get().runtime.choices, {key for key, _ in overridden_keys()}
    left = {
        group: name
        for group, (name, _) in OF_THE_LAB.items()
        if choices.get(group) == name and group not in given
    }
    if not left:
        return
    keys = [OF_THE_LAB[group][1] for group in left]
    values = ", ".join(f"{key}={OmegaConf.select(config, key)}" for key in keys)
    published = f"+experiment={'own_data' if choices.get('data') == 'local' else 'papo_geo3k'}"
    meant = " ".join(f"{group}={name}" for group, name in left.items())
    raise ValueError(
        f"{values} are settings for PerceptionLab's model of 0.35 M parameters, and this is another model. "
        f"The published settings: {shell_command([published, *sys.argv[1:]])} (docs/data.md). "
        f"Were the lab's meant? {meant}"
    )


def _is_ones_own(config: DictConfig) -> bool:
    """Whether the model is neither the lab's, nor a tiny random one, nor made for the lab's scenes."""
    model = config.model
    if "hub_id" not in model:
        return False
    if model.path is None:
        return model.hub_id is not None
    is_lab_data = str(config.data.get("_target_")) == LAB_PROBLEMS
    return not is_lab_data and Path(model.path) != WARM_START
