"""The parts of `train`: its plan, what is checked of it, the run, and how one is continued."""
