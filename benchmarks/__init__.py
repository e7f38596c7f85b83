"""Measurements of this project's speed and memory, each against a named alternative."""
