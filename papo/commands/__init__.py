"""The commands: they compose conf/ with Hydra, build objects, and run. No other room knows Hydra, or these."""
