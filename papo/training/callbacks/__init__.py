"""What happens beside training: tables, progress, pictures, validation. None of it changes what a rollout computes."""

from papo.training.callbacks.progress import PhaseProgress
from papo.training.callbacks.record import RecordMetrics
from papo.training.callbacks.rollout_table import RolloutTable
from papo.training.callbacks.safeguard import Safeguard
from papo.training.callbacks.term_gradients import TermGradients
from papo.training.callbacks.validation import EvaluateAtEnd, Validation

__all__ = [
    "EvaluateAtEnd",
    "PhaseProgress",
    "RecordMetrics",
    "RolloutTable",
    "Safeguard",
    "TermGradients",
    "Validation",
]
