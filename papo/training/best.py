"""Which checkpoint of a run was the best on held-out problems: best.json names it, the run keeps it."""

from dataclasses import asdict, dataclass
from pathlib import Path

from papo.storage.files import DamagedFile, read_object, write_json

BEST = "best"
"""RUN_DIR/best names the best checkpoint of a run where a checkpoint is asked for."""

_FILE = "best.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best validation of a run so far.

    Attributes:
        rollout_step: rollouts that were finished then.
        metric: what was compared; the larger the better.
        value: of it.
    """

    rollout_step: int
    metric: str
    value: float


def write_best(folder: Path, best: Best | None) -> None:
    """Says in a run's folder which checkpoint is the best; None: there is none yet."""
    if best is None:
        (folder / _FILE).unlink(missing_ok=True)
    else:
        write_json(folder / _FILE, asdict(best))


def read_best(folder: Path) -> Best | None:
    """Returns what `write_best` wrote of a run; None where it has none.

    Raises:
        DamagedFile: the file says something else.
    """
    file = folder / _FILE
    if not file.exists():
        return None
    remedy = "Name a checkpoint of the run's checkpoints/ instead."
    found = read_object(file, fields={"rollout_step": int, "metric": str}, remedy=remedy)
    value = found.get("value")
    if isinstance(found["rollout_step"], bool) or not isinstance(value, int | float):
        raise DamagedFile(f"{file} is damaged: it names no rollout with a value. {remedy}")
    return Best(rollout_step=found["rollout_step"], metric=found["metric"], value=float(value))
