"""Data sets become problems: tables, benchmarks in files, pictures, and a filter for unusable ones.

Not here: drawn scenes (papo.lab), tokens and patches (papo.models), the order in which problems are
seen (papo.training).
"""

from papo.data.census import notes_on
from papo.data.diagram_labels import DiagramLabels
from papo.data.filtering import (
    CheckedProblems,
    FilteredProblems,
    Reading,
    filter_problems,
)
from papo.data.logicvista import LogicVistaProblems
from papo.data.mixture import MixedProblems
from papo.data.papo_eval import PapoEvalProblems
from papo.data.preview import Preview, preview
from papo.data.problem_error import ProblemError
from papo.data.remembered import Remembered
from papo.data.table import ProblemTable
from papo.data.virl39k import Virl39kProblems

__all__ = [
    "CheckedProblems",
    "DiagramLabels",
    "FilteredProblems",
    "LogicVistaProblems",
    "MixedProblems",
    "PapoEvalProblems",
    "Preview",
    "ProblemError",
    "ProblemTable",
    "Reading",
    "Remembered",
    "Virl39kProblems",
    "filter_problems",
    "notes_on",
    "preview",
]
