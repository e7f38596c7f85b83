"""What sees a collapse while a run goes on, and what is done about it."""

from papo.safeguard.detector import Alarm, CollapseDetector, Signal

__all__ = ["Alarm", "CollapseDetector", "Signal"]
