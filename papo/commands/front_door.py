"""How a command starts and ends: its processes, its errors and signals, and what it says of them."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import wraps
from pathlib import Path
from traceback import print_exception
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from papo.commands.constructors import CONF
from papo.commands.overriding import quoted, shell_command, without
from papo.commands.resolvers import CommandStart, remove_empty_folders
from papo.machine.signals import Interrupted, hand_over, interruptible
from papo.machine.world import PeerFailed, require_one_process, world_of
from papo.storage.files import write_atomically

CONFIG_FOLDER = str(CONF)


# Mistakes of configuration and circumstance: one message says what to do, a traceback would hide it.
USER_ERRORS = (
    PeerFailed,
    ValueError,
    FileNotFoundError,
    MemoryError,
    ArithmeticError,
    OSError,
    OmegaConfBaseException,
)


_failures: list[str] = []

_last_acts: list[Callable[[], None]] = []
"""What the command does when its tasks are over, however they ended."""


_ranks: list[Any] = []
"""The Ranks that this command is one of, while it runs."""


FAILURE_FILE = "failure.json"
"""Says in the folder of a multirun's job why it failed, where it failed too early to be a run."""


class RanksFailed(ValueError):
    """The processes that a command started failed, and said why."""


class JobFailed(CompactHydraException):
    """A job of a multirun failed; every launcher then goes on, and the command ends with code 1."""


def run_dir() -> Path:
    """The folder of this run; under --multirun, of this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def command(main: Callable[[], Any], *, on_ranks: bool = False) -> int:
    """Runs a front door; returns the exit code: 1 where a job failed, 128 + n where signal n ended it.

    Args:
        main: Hydra's.
        on_ranks: whether it may be one of several processes.
    """
    try:
        # Before Hydra makes a folder.
        with interruptible(), _joined_if_several(on_ranks=on_ranks):
            try:
                main()
            finally:
                while _last_acts:
                    _last_acts.pop()()
                remove_empty_folders()
    except PeerFailed as error:
        _print_failure(error)
        return 1
    except ValueError as error:
        _print_error(error, traceback=_shows_tracebacks())
        return 1
    except Interrupted as stop:
        # Outside a job: before the first, between two, or in a launcher that waits for their processes.
        print(f"interrupted by {stop.signal.name}. {_way_on_outside_jobs()}", file=sys.stderr)
        return stop.exit_code
    return exit_code()


def at_the_end(act: Callable[[], None]) -> None:
    """Has the command do something when its tasks are over, also where one failed or a signal ended them."""
    _last_acts.append(act)


@contextmanager
def _joined_if_several(*, on_ranks: bool) -> Iterator[None]:
    """Within, several processes are one command; what one process needs of torch can wait for its task."""
    if not _ranks and world_of(os.environ) is None:
        yield
        return
    # All ranks would say the same of the settings.
    with _joined_ranks(on_ranks=on_ranks) as ranks, _silent(ranks):
        start = CommandStart()
        start.seconds = ranks.first(lambda: start.seconds)
        yield


@contextmanager
def _joined_ranks(*, on_ranks: bool) -> Iterator[Any]:
    """The ranks that the command is one of; entered once, whichever comes first: the command or its task."""
    if _ranks:
        yield _ranks[0]
        return
    if not on_ranks:
        require_one_process(os.environ)
    from papo.parallel import joined

    with joined(world_of(os.environ)) as ranks:
        _ranks.append(ranks)
        try:
            yield ranks
        finally:
            _ranks.clear()


@contextmanager
def _silent(ranks: Any) -> Iterator[None]:
    """Within, rank 0 speaks; of the others only warnings of this project are heard, with their rank."""
    if ranks.writes:
        yield
        return
    warnings = logging.StreamHandler(sys.__stderr__)
    warnings.setLevel(logging.WARNING)
    warnings.setFormatter(logging.Formatter(f"rank {ranks.rank}: %(message)s"))
    logging.getLogger("papo").addHandler(warnings)
    try:
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            yield
    finally:
        logging.getLogger("papo").removeHandler(warnings)


def _print_failure(error: PeerFailed) -> None:
    """One rank says why the run ended: the one it happened on, or rank 0 where that one could not."""
    if not error.failure.is_known and (not _ranks or _ranks[0].reports(error)):
        print(f"error: {error}", file=_stderr())


def _print_error(error: Exception, *, traceback: bool) -> None:
    """Other ranks than the first print nothing else, so they say whose error it is."""
    if traceback:
        print_exception(error, file=_stderr())
    whose = f" (rank {_ranks[0].rank})" if _ranks and not _ranks[0].writes else ""
    print(f"error{whose}: {str(error) or type(error).__name__}", file=_stderr())


def _shows_tracebacks() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def _stderr() -> Any:
    """Where an error is printed, also on ranks that are silent otherwise."""
    return sys.__stderr__ if _ranks and not _ranks[0].writes else sys.stderr


def clear_errors(
    *, reached: Callable[[Path], str], resumes_alone: bool, on_ranks: bool = False
) -> Callable[[Callable[..., Any]], Callable[[DictConfig], Any]]:
    """Prints one message for a user's error or a signal; an error lets the other jobs of a multirun go on.

    HYDRA_FULL_ERROR=1 shows the traceback of an error.

    Args:
        reached: says of a folder that was begun what it holds, e.g. "is saved up to rollout_000012".
        resumes_alone: whether run_dir and resume are all it takes to go on.
        on_ranks: whether the task may be one of several processes; it is then called with its Ranks too.
    """

    def decorate(task: Callable[..., Any]) -> Callable[[DictConfig], Any]:
        @wraps(task)
        def wrapped(config: DictConfig) -> Any:
            is_job = HydraConfig.get().mode is RunMode.MULTIRUN
            if is_job:
                (run_dir() / FAILURE_FILE).unlink(missing_ok=True)
            try:
                with (
                    interruptible(),
                    _joined_ranks(on_ranks=on_ranks) as ranks,
                    # Told at once: the others may wait for this rank.
                    ranks.ending_together(),
                ):
                    return task(config, ranks) if on_ranks else task(config)
            except Interrupted as stop:
                if not stop.is_told and (not _ranks or _ranks[0].writes):
                    print(
                        f"interrupted by {stop.signal.name}: "
                        + _way_on(config, reached=reached, resumes_alone=resumes_alone),
                        file=sys.stderr,
                    )
                # A launcher that requeues the job does so on one rank; the code of another must not kill it.
                raise SystemExit(0 if hand_over(stop.signal) else stop.exit_code) from None
            except USER_ERRORS as error:
                if _shows_tracebacks():
                    raise
                message = str(error) or type(error).__name__
                if isinstance(error, PeerFailed):
                    _print_failure(error)
                elif not isinstance(error, RanksFailed):
                    _print_error(error, traceback=False)
                if is_job:
                    _note_failure(message)
                    # A job may run in another process, whose exit code is not the command's.
                    raise JobFailed(message) from None
                _failures.append(message)
                return None
            except Exception as error:
                # Hydra would print it where the other ranks are silent.
                if _ranks and not _ranks[0].writes:
                    _print_error(error, traceback=True)
                raise

        return wrapped

    return decorate


def _way_on(config: DictConfig, *, reached: Callable[[Path], str], resumes_alone: bool) -> str:
    """Says what an interrupted command leaves, and the command that goes on."""
    hydra_config, folder = HydraConfig.get(), run_dir()
    begun = (folder / "run.json").exists()
    held = f"{folder} {reached(folder)}" if begun else f"nothing was begun in {folder}"
    if hydra_config.mode is RunMode.MULTIRUN:
        arguments = without(sys.argv[1:], "resume")
        if OmegaConf.select(config, "sweep.name") is None:
            sweep_dir = Path(hydra_config.sweep.dir).absolute()
            arguments = [
                *without(arguments, "run_dir", "hydra.sweep.dir"),
                quoted("hydra.sweep.dir", sweep_dir),
            ]
        arguments += ["resume=true"]
    elif begun and "resume" in config:
        rest = () if resumes_alone else without(hydra_config.overrides.task, "run_dir", "resume")
        arguments = [*rest, quoted("run_dir", folder), "resume=true"]
    else:
        # What cannot be continued starts in another folder.
        arguments = without(sys.argv[1:], *(("run_dir",) if begun else ()))
    return f"{held}. Go on with: {shell_command(arguments)}"


def _way_on_outside_jobs() -> str:
    arguments = sys.argv[1:]
    if not {"-m", "--multirun"} & {*arguments}:
        return f"Nothing was begun. Go on with: {shell_command(arguments)}"
    arguments = [*without(arguments, "resume"), "resume=true"]
    # Of a folder named after the time, nothing is known here.
    is_named = len(without(arguments, "run_dir", "hydra.sweep.dir", "sweep")) < len(arguments)
    rest = "" if is_named else " and hydra.sweep.dir=FOLDER, where its jobs are"
    return f"Go on with: {shell_command(arguments)}{rest}"


def _note_failure(message: str) -> None:
    overrides = list(HydraConfig.get().overrides.task)
    # On a full disk the reason of the failure matters more than its record.
    with suppress(OSError):
        write_atomically(
            run_dir() / FAILURE_FILE,
            json.dumps({"error": message, "overrides": overrides}, indent=2),
        )


def exit_code() -> int:
    """1 where a job of this process failed, else 0."""
    return 1 if _failures else 0
