"""A run folder that is there already: whose settings hold, and how far it can be continued from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from papo.commands import overriding
from papo.commands.constructors import read_run_config
from papo.commands.on_ranks import opened_on_ranks
from papo.commands.training.plan import KNOWN_KEYS, Plan
from papo.parallel import Ranks
from papo.training import LENGTH_KEY, PROCESS_KEYS, RunFolder, Start
from papo.types import AnnealedMask
from papo.views import MaskedView

# What a command may set without giving up the settings of the run it continues: groups and keys.
BESIDE_OWN_SETTINGS = (
    "run_dir",
    "resume",
    "allow",
    "logger",
    "callbacks",
    LENGTH_KEY,
    "model.trust_remote_code",
    *PROCESS_KEYS,
)


def open_folder(folder: RunFolder, start: Start, ranks: Ranks) -> Path | None:
    """Opens the run folder; returns the checkpoint that all ranks go on from.

    Raises:
        ValueError: a rank does not see the folder, or the checkpoint.
    """

    def opened() -> str | None:
        folder.open(start)
        return None if folder.checkpoint is None else str(folder.checkpoint)

    checkpoint = opened_on_ranks(folder.path, ranks, opened)
    if checkpoint is not None and not Path(checkpoint).exists():
        raise ValueError(
            f"all ranks go on from {checkpoint}, and rank {ranks.rank} does not find it. Set run_dir to a folder on a "
            "disk that all machines share."
        )
    return None if checkpoint is None else Path(checkpoint)


def names_no_setting(keys: Sequence[str]) -> bool:
    """Whether a command says only where a run is, who watches it and how long it is."""
    return all({key, key.split(".")[0]} & {*BESIDE_OWN_SETTINGS} for key in keys)


def own_settings(config: DictConfig, folder: RunFolder) -> DictConfig:
    """Returns the settings of the run that the folder holds; what the command line sets wins.

    Raises:
        ValueError: the folder's settings lack a key that this version reads, or construct what only the
            command line may ask for.
    """
    keys = overriding.overridden_keys()
    given = ("run_dir", "resume", "allow", *(key for key, _ in keys))
    before = read_run_config(folder.path / "config.yaml", given=given)
    if missing := sorted({*KNOWN_KEYS} & {*config} - {*before, *given}):
        raise ValueError(
            f"{folder.path / 'config.yaml'} was written by another version and lacks {missing[0]}; continue "
            "the run with that version (run.json names its commit), or name every setting"
        )
    own = OmegaConf.create(_moved(before, folder.settings().get("run_dir"), config.run_dir))
    for key in ("run_dir", "resume", "allow"):
        OmegaConf.update(own, key, config[key], force_add=True)
    for key, is_deleted in keys:
        if is_deleted:
            overriding.delete(own, key)
        else:
            value = OmegaConf.select(config, key)
            OmegaConf.update(own, key, value, merge=False, force_add=True)
    return own


def _moved(settings: dict[str, Any], before: object, now: str) -> dict[str, Any]:
    """The settings of a folder that may have been moved: what watches the run writes to where it is now."""

    def here(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: here(item) for key, item in value.items()}
        return now if value == before else value

    watchers: dict[str, Any] = {
        key: here(settings[key]) for key in ("logger", "callbacks") if key in settings
    }
    return {**settings, **watchers}


def check_length(plan: Plan, folder: RunFolder, start: Start) -> None:
    """Refuses another number of rollouts for a run whose schedule it would stretch.

    Without a schedule the longer run is, to the bit, the one that was begun so long.

    Raises:
        ValueError: the learning rate or the objective's weights depend on how much of the run is done.
    """
    anneals = isinstance(plan.image_mask, AnnealedMask) or any(
        isinstance(view, MaskedView) and view.depends_on_progress for view in plan.views.values()
    )
    if not folder.changes_length(start):
        return
    if plan.schedule.depends_on_length:
        raise ValueError(
            f"schedule.decay={plan.schedule.decay} lowers the learning rate over the whole run, so with {LENGTH_KEY}="
            f"{start.num_rollouts} the rollouts that are done would have been others. Leave it out, or start a new run "
            "in another run_dir."
        )
    if plan.objective.depends_on_progress or anneals:
        raise ValueError(
            "objective.gamma_anneal_until, anneal_until of a term, a credit that is surer the longer the run (pepo), or an "
            "annealed view or masking fades weights over the whole run, "
            f"so with {LENGTH_KEY}={start.num_rollouts} the rollouts that are done would have been "
            "others. Leave it out, or start a new run in another run_dir."
        )
