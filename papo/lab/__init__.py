"""PerceptionLab: drawn scenes whose truth is known, so every error of a response has a name.

Here: the scenes, the grammar and its exact grading, the tokenizer and config of a tiny
vision-language model, its shipped warm start, and the before/after report. Not here: loading the
model (the generic loader reads the warm-start folder like any other) and the training itself.
"""

from papo.lab.demonstrations import demonstration, encode_responses
from papo.lab.grader import LabGrader
from papo.lab.grading import Category, Grade, LabReward, grade_response
from papo.lab.held_out import held_out_set
from papo.lab.model import WARM_START, save_untrained_model, weights_sha256
from papo.lab.problems import PerceptionLabProblems, held_out_sets
from papo.lab.report import (
    compare_reports,
    evaluate_lab,
    summarize_grades,
)
from papo.lab.scene import scene_numbers
from papo.lab.shapes import SHAPES, Shape, shape_named
from papo.lab.vocabulary import (
    build_tokenizer,
    check_model_speaks,
    shortest_response,
    write_tokenizer,
)

__all__ = [
    "SHAPES",
    "WARM_START",
    "Category",
    "Grade",
    "LabGrader",
    "LabReward",
    "PerceptionLabProblems",
    "Shape",
    "build_tokenizer",
    "check_model_speaks",
    "compare_reports",
    "demonstration",
    "encode_responses",
    "evaluate_lab",
    "grade_response",
    "held_out_set",
    "held_out_sets",
    "save_untrained_model",
    "scene_numbers",
    "shape_named",
    "shortest_response",
    "summarize_grades",
    "weights_sha256",
    "write_tokenizer",
]
