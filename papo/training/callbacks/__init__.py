"""What happens beside training: tables, progress, pictures. None of it changes what is computed."""

from papo.training.callbacks.progress import PhaseProgress
from papo.training.callbacks.record import RecordMetrics
from papo.training.callbacks.rollout_table import RolloutTable

__all__ = ["PhaseProgress", "RecordMetrics", "RolloutTable"]
