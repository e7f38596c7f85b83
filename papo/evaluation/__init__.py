"""Evaluation: benchmarks in, graded responses, tables and what the image is worth out."""
