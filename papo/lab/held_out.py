"""One of the lab's two fixed test sets, by name, as a configuration asks for it."""

from papo.lab.problems import PerceptionLabProblems, held_out_sets
from papo.lab.shapes import RECTANGLE
from papo.types import key_in


def held_out_set(
    *,
    name: str,
    zipf_exponent: float,
    difficulty: float,
    size: int,
    limit: int | None,
    shape: str = RECTANGLE.name,
    section: str = "benchmark.sets.KEY.problems",
) -> PerceptionLabProblems:
    """Returns the set of this name in `held_out_sets`, or its first `limit` problems.

    Raises:
        ValueError: there is no set of this name, or a number is impossible.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"{key_in(section, 'limit')} counts from 1; got {limit}")
    sets = held_out_sets(
        zipf_exponent=zipf_exponent,
        difficulty=difficulty,
        size=size if limit is None else min(size, limit),
        shape=shape,
        section=section,
    )
    if name not in sets:
        raise ValueError(f"PerceptionLab has the test sets {', '.join(sets)}; got {name!r}")
    return sets[name]
