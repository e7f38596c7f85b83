"""Evaluation: benchmarks in, graded responses, tables and what the image is worth out."""

from papo.evaluation.view import ImageView, Item, ReadingPolicy, View

__all__ = ["ImageView", "Item", "ReadingPolicy", "View"]
