"""One run from its configuration to its end: checked, opened, continued or begun, and recorded."""

from dataclasses import replace
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from papo.commands import arms, front_door, overriding
from papo.commands.constructors import allow_packages, plain
from papo.commands.lab_settings import check_settings_are_meant
from papo.commands.on_ranks import end_recorded, launch_ranks, locked_on_ranks, require_same_start
from papo.commands.training.continued import (
    check_length,
    names_no_setting,
    open_folder,
    own_settings,
)
from papo.commands.training.ending import from_here, quieten, say, show_end
from papo.commands.training.plan import Plan, make_plan
from papo.commands.training.preflight import preflight
from papo.commands.training.run import run
from papo.parallel import Ranks, check_processes, device_of_process
from papo.rollout import check_ahead_alone
from papo.training import (
    LENGTH_KEY,
    RunFolder,
    Start,
    check_offload,
    check_share,
    check_strategy,
    finish_loggers,
)


def train(config: DictConfig, ranks: Ranks) -> float:
    """One run, or one rank of it. Returns the mean reward of the last rollout, for sweepers."""
    keys = [key for key, _ in overriding.overridden_keys()]
    quieten(writes=ranks.writes, keys=keys)
    # Of the command line: what a run folder says of it is not read.
    allow_packages(plain(config, resolve=False).get("allow"))
    arms.apply_arm(config)
    check_settings_are_meant(config)
    folder = RunFolder(front_door.run_dir())
    OmegaConf.update(config, "run_dir", str(folder.path))
    if config.resume and folder.holds_run() and names_no_setting(keys):
        # Whatever else of the folder was deleted.
        if LENGTH_KEY not in keys and ranks.first(folder.is_finished):
            return show_end(folder)
        config = own_settings(config, folder)
    start = Start(
        config=plain(config),
        config_text=OmegaConf.to_yaml(config, resolve=True),
        overrides=list(HydraConfig.get().overrides.task),
        resume=config.resume,
        sets_length=LENGTH_KEY in keys,
    )
    # Before anything is opened for writing, or built: what is finished stays as it is.
    if ranks.first(lambda: folder.is_done(start)):
        return show_end(folder)
    plan = make_plan(config)
    check_length(plan, folder, start)
    num_processes = check_processes(
        devices=config.trainer.devices,
        num_nodes=config.trainer.get("num_nodes", 1),
        section="trainer.",
        group="trainer=replicas",
        script="train.py",
        ranks=ranks,
    )
    check_ahead_alone(plan.ahead, num_processes)
    check_share(num_processes, prompts_per_minibatch=plan.settings.prompts_per_minibatch)
    require_same_start(ranks, start.config, start.overrides)
    shards = check_strategy(
        strategy=config.trainer.get("strategy"),
        shard_size=config.trainer.get("shard_size"),
        precision=config.trainer.precision,
        processes=num_processes,
    )
    device = device_of_process(
        config.trainer.get("accelerator", "auto"),
        devices=config.trainer.devices,
        ranks=ranks,
        key="trainer.accelerator",
        section="trainer.",
    )
    check_offload(config.trainer.get("offload_while_sampling"), device)
    recomputes, notes = preflight(plan, ranks, device, shards)
    if num_processes > ranks.size:
        launch_ranks("train", num_processes=num_processes, run_dir=folder.path)
        return float(folder.final_metrics()["reward/mean"])
    with locked_on_ranks(folder.path, ranks):
        # Another process may have finished it meanwhile.
        if ranks.first(lambda: folder.is_done(start)):
            return show_end(folder)
        folder.checkpoint = open_folder(folder, start, ranks)
        say(f"run folder: {from_here(folder.path)}")
        for note in notes:
            say(note)
        return run_in(folder, replace(plan, recomputes=recomputes), start, ranks, device)


def run_in(
    folder: RunFolder, plan: Plan, start: Start, ranks: Ranks, device: torch.device
) -> float:
    """The run, and a record of how it ended."""
    loggers: list[Any] = []
    failed = True
    try:
        with end_recorded(ranks, folder.write_result):
            reward = run(plan, folder, start, loggers, ranks, device)
        failed = False
        return reward
    finally:
        finish_loggers(loggers, failed=failed)
        if hasattr(plan.reward, "close"):
            plan.reward.close()
