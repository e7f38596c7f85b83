"""What sees a collapse while a run goes on, and what is done about it."""

from papo.safeguard.detector import Alarm, CollapseDetector, Signal, replay

__all__ = ["Alarm", "CollapseDetector", "Signal", "replay"]
