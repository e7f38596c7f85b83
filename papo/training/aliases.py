"""More names for the same curves, so that they overlay with runs of other trainers.

The tables are data (conf/logger/aliases/); docs/dashboard.md says what each name means elsewhere.
"""

import re
from collections.abc import Mapping, Sequence

Formula = tuple[tuple[int, str], ...]
"""Signed metrics to add up; the metric `1` is the number."""

_NAME = r"\s*(1(?![\w/])|[A-Za-z]\w*(?:/\w+)*)\s*"
_TERM = re.compile(rf"\s*([+-]?){_NAME}")
_FORMULA = re.compile(rf"{_TERM.pattern}(?:[+-]{_NAME})*")


def parse_formula(text: str) -> Formula:
    """Returns the terms of a formula such as `-loss/perception_kl` or `1 - response/finished`.

    Raises:
        ValueError: it is not a sum of metrics with signs.
    """
    if not _FORMULA.fullmatch(text):
        raise ValueError(
            "an alias is metrics joined by + and -, such as `1 - response/finished`; "
            f"got {text!r}. Set logger.wandb.alias_tables."
        )
    return tuple((-1 if sign == "-" else 1, name) for sign, name in _TERM.findall(text))


def choose_aliases(
    tables: Mapping[str, Mapping[str, str]], chosen: Sequence[str]
) -> dict[str, Formula]:
    """Returns the formula of every alias of the chosen tables.

    Raises:
        ValueError: there is no such table, a formula cannot be read, or two tables give one name
            two meanings.
    """
    if unknown := [name for name in chosen if name not in tables]:
        raise ValueError(
            f"there are alias tables {', '.join(tables) or '(none)'}; got {unknown[0]!r}. "
            "Set logger.wandb.aliases."
        )
    formulas: dict[str, Formula] = {}
    for table in chosen:
        for alias, text in tables[table].items():
            formula = parse_formula(text)
            if formulas.setdefault(alias, formula) != formula:
                raise ValueError(
                    f"{alias} means one thing per chart; the tables {', '.join(chosen)} give it two. "
                    "Choose one of them in logger.wandb.aliases."
                )
    return formulas


def aliased(
    formulas: Mapping[str, Formula], metrics: Mapping[str, float | int]
) -> dict[str, float | int]:
    """Returns the values of all aliases whose metrics are there."""
    known = {**metrics, "1": 1}
    return {
        alias: sum(sign * known[name] for sign, name in formula)
        for alias, formula in formulas.items()
        if all(name in known for _, name in formula)
    }
