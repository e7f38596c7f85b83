"""The training objective: named, weighted terms over the pure functions of papo.functional."""

from papo.objective.errors import NonFiniteTermError
from papo.objective.papo import PAPOObjective

__all__ = ["NonFiniteTermError", "PAPOObjective"]
