"""The names of the graders, for those who must not import what a grader needs."""

GRADER_NAMES = ("mathruler", "math_verify", "combined")
