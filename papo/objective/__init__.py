"""The training objective: named, weighted terms over the pure functions of papo.functional.

A term of your own is a class that derives from `Term`, named in the configuration
(`objective.terms.NAME._target_`).
"""

from papo.objective.errors import NonFiniteTermError, SettingError
from papo.objective.objective import Objective
from papo.objective.term import Term, look, view_needs
from papo.objective.terms import ClippedSurrogate, ReferenceKL, ViewEntropy, ViewKL

__all__ = [
    "ClippedSurrogate",
    "NonFiniteTermError",
    "Objective",
    "ReferenceKL",
    "SettingError",
    "Term",
    "ViewEntropy",
    "ViewKL",
    "look",
    "view_needs",
]
