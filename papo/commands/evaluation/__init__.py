"""The parts of `evaluate`: its plan, and the evaluation itself."""
