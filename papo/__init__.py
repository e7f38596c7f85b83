"""PAPO: Perception-Aware Policy Optimization (arXiv:2507.06448) as a research framework."""

__version__ = "0.1.0"
