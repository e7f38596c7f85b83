"""The training objective: named, weighted terms over the pure functions of papo.functional.

A term of your own is a class that derives from `Term`, named in the configuration
(`objective.terms.NAME._target_`), and a credit one that derives from `Credit` (`objective.credits.NAME._target_`).
"""

from papo.objective.credit import (
    SCOPES,
    Blocks,
    Credit,
    credit_metrics,
    old,
    old_needs,
)
from papo.objective.errors import NonFiniteTermError, SettingError
from papo.objective.objective import Objective
from papo.objective.pulls import TermPull, term_pulls
from papo.objective.term import (
    Number,
    PolicyOfView,
    Term,
    TokenChoice,
    TokenValues,
    look,
    view_needs,
)
from papo.objective.terms import ClippedSurrogate, ReferenceKL, ViewEntropy, ViewKL

__all__ = [
    "SCOPES",
    "Blocks",
    "ClippedSurrogate",
    "Credit",
    "NonFiniteTermError",
    "Number",
    "Objective",
    "PolicyOfView",
    "ReferenceKL",
    "SettingError",
    "Term",
    "TermPull",
    "TokenChoice",
    "TokenValues",
    "ViewEntropy",
    "ViewKL",
    "credit_metrics",
    "look",
    "old",
    "old_needs",
    "term_pulls",
    "view_needs",
]
