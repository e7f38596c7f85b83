"""Data sets become problems: hub or local tables, decoded pictures, and a filter for unusable ones.

Not here: drawn scenes (papo.lab), tokens and patches (papo.models), the order in which problems are
seen (papo.training).
"""

from papo.data.filtering import FilteredProblems, ProblemFilterReport, filter_problems
from papo.data.problem_error import ProblemError
from papo.data.table import ProblemTable

__all__ = [
    "FilteredProblems",
    "ProblemError",
    "ProblemFilterReport",
    "ProblemTable",
    "filter_problems",
]
