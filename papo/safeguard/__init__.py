"""What sees a collapse while a run goes on, and what is done about it."""

from papo.safeguard.controller import Controller, Held
from papo.safeguard.detector import Alarm, CollapseDetector, Signal, replay
from papo.safeguard.rollbacks import Rollbacks

__all__ = ["Alarm", "CollapseDetector", "Controller", "Held", "Rollbacks", "Signal", "replay"]
