"""The arm of a sweep: several settings that go together."""

import os
import sys

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from papo.commands.constructors import plain
from papo.commands.overriding import shell_command
from papo.commands.resolvers import MULTIRUN_VARIABLE


def apply_arm(config: DictConfig) -> None:
    """Writes the settings of the sweep's arm, `sweep.arms[sweep.arm]`, into the configuration.

    Arms of several settings cannot be written as Hydra's choices, and must win over the experiment's.

    Raises:
        ValueError: a sweep outside a multirun; an arm of another name, one that sets a key nothing has, or
            one that would overrule the command line.
    """
    _require_multirun_of_sweep()
    arms = OmegaConf.select(config, "sweep.arms") or {}
    if not arms:
        return
    if config.sweep.arm not in arms:
        raise ValueError(
            f"sweep.arm is one of {', '.join(map(str, arms))}; got {config.sweep.arm!r}"
        )
    settings = plain(arms[config.sweep.arm])
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    for override in map(str, given):
        if (name := override.lstrip("+").partition("=")[0]) in settings:
            raise ValueError(
                f"the arm {config.sweep.arm} sets {name} itself, so {override} would do nothing. Leave it "
                "out, or write a sweep of your own (docs/sweeps.md)."
            )
    for key, value in settings.items():
        group, _, name = str(key).rpartition(".")
        if name not in (OmegaConf.select(config, group) or {}):
            raise ValueError(f"the arm {config.sweep.arm} sets {key}, which no configuration has")
        OmegaConf.update(config, str(key), value)


def _require_multirun_of_sweep() -> None:
    """A single run reads nothing of hydra.sweeper.params: it would bear an arm's name, and not be it."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.RUN:
        return
    if MULTIRUN_VARIABLE in os.environ:
        return
    if sweep := HydraConfig.get().runtime.choices.get("sweep"):
        raise ValueError(
            f"+sweep={sweep} sets its arms in a multirun alone, so without -m this would be another run under "
            f"an arm's name. Start the sweep with: {shell_command(['-m', *sys.argv[1:]])} (one job of it: "
            "give the values of its arm and seed=N as well)"
        )
