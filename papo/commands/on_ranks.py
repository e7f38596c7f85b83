"""What train.py and evaluate.py share of a command on several processes; alone, each does the same with one."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig

from papo.commands import front_door, overriding, resolvers
from papo.commands.command_line import variables, words_of
from papo.machine.signals import STOPPING, Interrupted
from papo.models import checkpoint_weights
from papo.parallel import Failure, Ranks, launch
from papo.rollout import WeightSource, run_name
from papo.storage.files import locked
from papo.storage.provenance import flatten_settings, run_facts

Opened = TypeVar("Opened")

# A launched command that a signal ended has said so.
_STOPPED_CODES = tuple(128 + number for number in STOPPING)


def launch_ranks(name: str, *, num_processes: int, run_dir: Path) -> None:
    """Has the command that this process runs done by so many processes of this machine.

    Raises:
        RanksFailed: they failed, and have said why.
        Interrupted: a signal ended them, and they have said so.
    """
    overrides = overriding.without(HydraConfig.get().overrides.task, "run_dir")
    multirun = resolvers.multirun_name()
    code = launch(
        [*words_of(name), *overrides, overriding.quoted("run_dir", run_dir)],
        processes=num_processes,
        variables=variables()
        | ({} if multirun is None else {resolvers.MULTIRUN_VARIABLE: multirun}),
    )
    if code in _STOPPED_CODES:
        raise Interrupted(code - 128, is_told=True)
    if code:
        raise front_door.RanksFailed(f"the {num_processes} processes of the run ended with {code}")


def require_same_start(
    ranks: Ranks, config: Mapping[str, Any], overrides: list[str], **facts: Any
) -> None:
    """Refuses ranks that would not do the same work.

    Args:
        ranks: of the command.
        config: the resolved configuration, plain values.
        overrides: of the command line.
        facts: what else must be the same, plain values.

    Raises:
        RanksDiffer: their settings, code, versions or facts differ.
    """
    if ranks.size == 1:
        return
    found = run_facts(overrides=overrides, seed=config.get("seed"))
    ranks.require_equal(
        {
            **dict(flatten_settings(config)),
            "git commit": found["git_commit"],
            "versions": found["versions"],
            **facts,
        },
        remedy="Start them all with one command, from one checkout and one environment.",
    )


def locked_on_ranks(folder: Path, ranks: Ranks) -> Any:
    """As `papo.storage.files.locked`: rank 0 holds the folder for all."""
    return locked(folder) if ranks.writes else nullcontext()


def opened_on_ranks(folder: Path, ranks: Ranks, opened: Callable[[], Opened]) -> Opened:
    """Rank 0 opens a run folder; returns what that gave, plain values, on all ranks.

    Raises:
        ValueError: a rank does not see the folder.
    """
    result = ranks.first(opened)
    if not (folder / "run.json").exists():
        raise ValueError(
            f"all ranks see the run folder; rank {ranks.rank} does not find in {folder} what rank 0 has "
            "there. Set run_dir to a folder on a disk that all machines share."
        )
    return result


def weight_source(policy: Any, folder: Path, ranks: Ranks) -> WeightSource:
    """The weights of a policy as servers are given them, under a name that no other start has. Collective.

    Args:
        policy: whose weights.
        folder: of the run, or of the evaluation.
        ranks: of the command.
    """
    return WeightSource(
        weights=partial(checkpoint_weights, policy.model),
        ranks=ranks,
        run=ranks.first(lambda: run_name(folder, secrets.token_hex(4))),
    )


@contextmanager
def end_recorded(ranks: Ranks, write_result: Callable[..., None]) -> Iterator[None]:
    """Within, an error or a signal on one rank ends all, and one of them records how the run ended.

    Args:
        ranks: of the command.
        write_result: called with the status and, as `error`, the reason.
    """

    def last_words(failure: Failure) -> None:
        write_result("failed" if failure.signal is None else "interrupted", error=str(failure))

    if ranks.writes:
        ranks.on_loss(last_words)
    try:
        with ranks.ending_together():
            yield
    except BaseException as why:
        status = "failed" if isinstance(why, Exception) else "interrupted"
        # On a full disk the reason of the failure matters more than its record.
        with suppress(OSError):
            if ranks.reports(why):
                write_result(status, error=f"{type(why).__name__}: {why}")
        raise
