"""Evaluation: benchmarks in, graded responses, tables and what the image is worth out.

runner.py is the loop, store.py what it keeps, scores.py the numbers. Not here: loading benchmarks
(papo.data, papo.lab), grading (papo.rewards, papo.lab), anything that knows Hydra (evaluate.py).
"""

from papo.evaluation.benchmark import Benchmark
from papo.evaluation.checkpoint_files import check_hugging_face_folder
from papo.evaluation.comparison import compare_evaluations, read_evaluation
from papo.evaluation.comparison_report import (
    comparison_notes,
    comparison_table,
    write_comparison,
)
from papo.evaluation.folder import EvaluationFolder
from papo.evaluation.progress import duration, show_progress
from papo.evaluation.report import notes, terminal_table
from papo.evaluation.runner import Runner
from papo.evaluation.scores import SetScores, averages, score_responses
from papo.evaluation.settings import EvaluationSettings, check_num_responses, evaluation_settings
from papo.evaluation.store import ResponseStore, read_responses
from papo.evaluation.summary import summarize
from papo.evaluation.view import ImageView, Item, ReadingPolicy, View
from papo.evaluation.views import BlankView, MaskedView, RemovedView, SwappedView
from papo.evaluation.vision_dependency import VisionDependency, measure_vision_dependency
from papo.evaluation.vision_report import write_vision_dependency

__all__ = [
    "Benchmark",
    "BlankView",
    "EvaluationFolder",
    "EvaluationSettings",
    "ImageView",
    "Item",
    "MaskedView",
    "ReadingPolicy",
    "RemovedView",
    "ResponseStore",
    "Runner",
    "SetScores",
    "SwappedView",
    "View",
    "VisionDependency",
    "averages",
    "check_hugging_face_folder",
    "check_num_responses",
    "compare_evaluations",
    "comparison_notes",
    "comparison_table",
    "duration",
    "evaluation_settings",
    "measure_vision_dependency",
    "notes",
    "read_evaluation",
    "read_responses",
    "score_responses",
    "show_progress",
    "summarize",
    "terminal_table",
    "write_comparison",
    "write_vision_dependency",
]
