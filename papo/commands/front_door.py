"""What train.py, evaluate.py and analyze.py share: the only code that knows Hydra."""

import importlib.util
import json
import logging
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import wraps
from pathlib import Path
from traceback import print_exception
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from papo.commands.constructor_arguments import check_arguments, refusals_named
from papo.commands.constructors import CONF, check_targets, plain
from papo.files import write_atomically
from papo.lab import WARM_START
from papo.objective import Credit, Objective, SettingError, Term
from papo.parallel import PeerFailed, Ranks, asks_for_gpu, joined, require_one_process, world_of
from papo.processes import Interrupted, hand_over, interruptible

CONFIG_FOLDER = str(CONF)


class CommandStart(metaclass=Singleton):
    """When the command started, by the clock of the process that the user started.

    Hydra's launchers take its singletons to the processes of their jobs, also of a job that is requeued.
    """

    def __init__(self) -> None:
        self.seconds = time.time()


# Now, and not when it is first asked for.
CommandStart()

MAY_BE_INFINITE = ("training.max_grad_norm",)
"""The keys, also below the arm of a sweep, for which infinity is a setting: clipping is off."""

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

_ranks: list[Ranks] = []
"""The processes that this command is one of, while it runs."""

MULTIRUN_VARIABLE = "PAPO_MULTIRUN"
"""Names the multirun to the processes that one of its jobs starts."""

FAILURE_FILE = "failure.json"
"""Says in the folder of a multirun's job why it failed, where it failed too early to be a run."""


class RanksFailed(ValueError):
    """The processes that a command started failed, and said why."""


class JobFailed(CompactHydraException):
    """A job of a multirun failed; every launcher then goes on, and the command ends with code 1."""


def experiment_name() -> str:
    """The chosen experiment, or `lab` where none was."""
    if not HydraConfig.initialized():
        return "lab"
    return str(HydraConfig.get().runtime.choices.get("experiment") or "lab")


def multirun_name() -> str | None:
    """The name of the folder that the jobs of a multirun share; None for a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return os.environ.get(MULTIRUN_VARIABLE)
    return Path(HydraConfig.get().sweep.dir).name


def start_time(form: str) -> str:
    """The time at which the command started, the same on all ranks and in all jobs, as strftime writes it."""
    return time.strftime(form, time.localtime(CommandStart().seconds))


def was_requeued() -> bool:
    """Whether SLURM has started this job before: what it began then, it continues."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


def by_device(accelerator: str, on_gpu: Any, on_cpu: Any) -> Any:
    """One of two values, by where the run computes (trainer.accelerator)."""
    return on_gpu if asks_for_gpu(accelerator) else on_cpu


def makeable_folder(folder: str) -> str:
    """The folder; ends the command with one line where it is not there and cannot be made.

    Hydra makes it before anything of this project is asked, and would show a traceback.
    """
    path = Path(folder).absolute()
    there = next(one for one in (path, *path.parents) if one.exists())
    if there != path and not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        reason = "cannot be written to" if there.is_dir() else "is no folder"
        print(f"error: {path} cannot be made: {there} {reason}. Set run_dir=", file=sys.stderr)
        raise SystemExit(1)
    return folder


OmegaConf.register_new_resolver("by_device", by_device, replace=True)
OmegaConf.register_new_resolver("makeable_folder", makeable_folder, replace=True)
OmegaConf.register_new_resolver("start_time", start_time, replace=True)
OmegaConf.register_new_resolver("was_requeued", was_requeued, replace=True)
OmegaConf.register_new_resolver("multirun_name", multirun_name, replace=True)
OmegaConf.register_new_resolver("experiment_name", experiment_name, replace=True)
OmegaConf.register_new_resolver("lab_warm_start", lambda: str(WARM_START), replace=True)


def instantiate(node: DictConfig, *, without: tuple[str, ...] = (), **arguments: Any) -> Any:
    """Constructs what a node of the configuration describes; the one call of Hydra's instantiate.

    Args:
        node: with a `_target_`; with `_partial_: true` the result still wants arguments.
        without: keys that are not the constructor's.
        arguments: for the constructor, where the node does not set them itself.

    Raises:
        ValueError: a `_target_` that no configuration may name (constructors.py), or arguments that it does not
            take.
        Exception: what a constructor of papo raised, not Hydra's wrapping of it.
    """
    key, values = key_of(node), plain(node)
    check_targets(values)
    arguments |= {name: value for name, value in values.items() if name not in without}
    with settings_named(node):
        check_arguments(arguments, key)
    with settings_named(node), refusals_named(arguments, key):
        return hydra.utils.instantiate(arguments, _convert_="all")


def instantiate_each(node: DictConfig, key: str, kind: type) -> dict[str, Any]:
    """Builds the objects of one kind that stand under `key` of `node`, by their names.

    Raises:
        ValueError: something else stands there.
    """
    built = {}
    for name, one in (node.get(key) or {}).items():
        built[name] = instantiate(one) if isinstance(one, DictConfig) else one
        if not isinstance(built[name], kind):
            raise ValueError(
                f"{key_of(node)}.{key}.{name} is built as a {kind.__module__}.{kind.__name__} by its _target_; "
                f"got {one}"
            )
    return built


def make_objective(config: DictConfig) -> Objective:
    """Builds the terms and credits of the loss, each by itself: what one refuses is told with its keys.

    Raises:
        ValueError: an impossible setting, or a key that nothing reads.
    """
    text = OmegaConf.to_yaml(config.objective)
    # A run's own configuration is resolved: nothing in it says who reads what.
    if read := set(re.findall(r"\$\{objective\.(\w+)", text)):
        shipped = {
            key
            for file in (CONF / "objective").rglob("*.yaml")
            for key in re.findall(r"^(\w+):", file.read_text("utf-8"), re.MULTILINE)
        }
        # A shipped key may have lost its reader: whoever sets a term's weight itself needs no gamma.
        if unread := set(config.objective) - read - shipped:
            raise ValueError(
                f"unknown key: objective.{min(unread)}; no part of the objective reads it"
            )
    terms = instantiate_each(config.objective, "terms", Term)
    credits = instantiate_each(config.objective, "credits", Credit)
    with settings_named(config.fidelity):
        return Objective(terms=terms, credits=credits, count_epsilon=config.fidelity.count_epsilon)


@contextmanager
def settings_named(node: DictConfig) -> Iterator[None]:
    """Puts the keys that the user sets into what papo says of its own settings.

    A value that a node takes from elsewhere (`${objective.gamma}`) is set there.

    Raises:
        ValueError: instead of a SettingError, with keys for names; or one that began with another key.
    """
    try:
        yield
    except ValueError as error:
        written = plain(node, resolve=False)
        here = {str(name): f"{key_of(node)}.{name}" for name in written}
        keys = {
            name: source[1]
            if (source := re.fullmatch(r"\$\{([\w.]+)\}", str(written[name])))
            else key
            for name, key in here.items()
        }
        if isinstance(error, SettingError):
            raise ValueError(error.with_keys(keys)) from None
        first, _, rest = str(error).partition(" ")
        for name, key in here.items():
            if first == key != keys[name]:
                raise ValueError(f"{keys[name]} {rest}") from None
        raise


def check_node(node: DictConfig) -> None:
    """Checks what `instantiate` will hand to a constructor that is called later.

    Raises:
        ValueError: as of `instantiate`.
    """
    values = plain(node)
    check_targets(values)
    check_arguments(values, key_of(node))


def key_of(node: DictConfig) -> str:
    """Returns where a node stands in the configuration, e.g. `callbacks.progress`."""
    return str(node._get_full_key(None))


def check_known_keys(config: DictConfig, known: Iterable[str]) -> None:
    """Refuses keys that nothing reads: a silently ignored setting is a bug.

    Raises:
        ValueError: an unknown key at the top level of the configuration, a number that is not finite, or
            anywhere in it a `_target_` that no configuration may name (constructors.py).
    """
    # As it was written: an interpolation would name the key that reads it, not the one to set.
    for key, value in _settings(plain(config, resolve=False)):
        if not _is_finite(value) and not (value == math.inf and key.endswith(MAY_BE_INFINITE)):
            raise ValueError(f"a setting is a finite number; got {value}. Set {key}.")
    check_targets(plain(config))
    if unknown := sorted(set(config) - set(known)):
        raise ValueError(
            f"unknown key {unknown[0]}; known: {', '.join(sorted(known))}. "
            "Was it meant for one of these groups?"
        )


def check_wandb(mode: str, *, key: str) -> None:
    """Says what is missing before anything is done that W&B could not log in the end.

    Args:
        mode: offline, online or disabled.
        key: where it is set.

    Raises:
        ValueError: another mode, or the package or a login is missing.
    """
    if mode not in ("disabled", "offline", "online"):
        raise ValueError(f"W&B runs offline, online or disabled; got {key}={mode!r}")
    if mode == "disabled":
        return
    if importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"{key}={mode} needs the package wandb: pip install wandb, or set {key}=disabled"
        )
    if mode == "online":
        import wandb

        try:
            logged_in = wandb.login(prompt=False)
        except (wandb.Error, ValueError) as error:
            raise ValueError(f"{key}=online: {error}. {key}=offline needs no account.") from error
        if not logged_in:
            raise ValueError(
                f"{key}=online needs an account: wandb login, or the variable WANDB_API_KEY. "
                f"{key}=offline needs none."
            )


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


def overridden_keys() -> list[tuple[str, bool]]:
    """What the command line of this job set: dotted keys, and whether it deleted them."""
    overrides = list(HydraConfig.get().overrides.task)
    return [
        (override.get_key_element().lstrip("+~"), override.is_delete())
        for override in OverridesParser.create().parse_overrides(overrides)
    ]


def delete(config: DictConfig, key: str) -> None:
    """Takes a key out of a configuration, where it is there."""
    group, _, name = key.rpartition(".")
    node = OmegaConf.select(config, group) if group else config
    if node is not None and name in node:
        del node[name]


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
        with (
            interruptible(),
            _joined_ranks(on_ranks=on_ranks) as ranks,
            # All ranks would say the same of the settings.
            _silent(ranks),
        ):
            _share_start_time(ranks)
            main()
    except PeerFailed as error:
        _print_failure(error)
        return 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        # Outside a job: before the first, between two, or in a launcher that waits for their processes.
        print(f"interrupted by {stop.signal.name}. {_way_on_outside_jobs()}", file=sys.stderr)
        return stop.exit_code
    return exit_code()


@contextmanager
def _joined_ranks(*, on_ranks: bool) -> Iterator[Ranks]:
    """The ranks that the command is one of; entered once, whichever comes first: the command or its task."""
    if _ranks:
        yield _ranks[0]
        return
    if not on_ranks:
        require_one_process(os.environ)
    with joined(world_of(os.environ)) as ranks:
        _ranks.append(ranks)
        try:
            yield ranks
        finally:
            _ranks.clear()


def _share_start_time(ranks: Ranks) -> None:
    start = CommandStart()
    start.seconds = ranks.first(lambda: start.seconds)


@contextmanager
def _silent(ranks: Ranks) -> Iterator[None]:
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
                if os.environ.get("HYDRA_FULL_ERROR") == "1":
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


def without(overrides: Iterable[str], *keys: str) -> list[str]:
    """Returns the overrides that set none of the keys."""
    return [text for text in overrides if text.lstrip("+").partition("=")[0] not in keys]


def shell_command(arguments: Iterable[str]) -> str:
    """Returns the line that starts this front door with other arguments."""
    program = sys.argv[0]
    words = program.split() if program.startswith("papo ") else ["python", program]
    return shlex.join([*words, *arguments])


def command_line(name: str, arguments: Iterable[str]) -> str:
    """Returns the line that starts another front door, as this one was started."""
    program = sys.argv[0]
    is_package = program.startswith("papo ")
    words = ["papo", name] if is_package else ["python", str(Path(program).with_name(f"{name}.py"))]
    return shlex.join([*words, *arguments])


def quoted(name: str, value: Any) -> str:
    """Returns an override that Hydra reads back as it is: paths may hold commas and spaces."""
    if not isinstance(value, str | Path):
        return f"{name}={json.dumps(value)}"
    if re.fullmatch(r"/[\w/.@-]+", str(value), re.ASCII):
        return f"{name}={value}"
    # Within quotes a backslash speaks for itself, except before a quote.
    text = re.sub(r"(\\+)('|$)", r"\1\1\2", str(value)).replace("'", "\\'")
    return f"{name}='{text}'"


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


def _settings(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every value with the key that sets it; the members of a list have the key of the list."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _settings(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _settings(value, key)
    else:
        yield key, node


def _is_finite(value: Any) -> bool:
    # The command line knows inf and nan; YAML's spelling arrives there as text.
    if isinstance(value, str):
        return value.lower().lstrip("+-") not in (".inf", ".nan")
    return not isinstance(value, float) or math.isfinite(value)
