"""Evaluation: benchmarks in, graded responses, tables and what the image is worth out.

runner.py is the loop, store.py what it keeps, scores.py the numbers. Not here: loading benchmarks
(papo.data, papo.lab), grading (papo.rewards, papo.lab), anything that knows Hydra (evaluate.py).
"""

from papo.evaluation.attention import (
    ResponseAttention,
    measure_attention,
    response_attention,
    write_attention,
)
from papo.evaluation.benchmark import Benchmark
from papo.evaluation.checkpoint_files import check_hugging_face_folder
from papo.evaluation.comparison import compare_evaluations, read_evaluation
from papo.evaluation.comparison_report import (
    comparison_notes,
    comparison_table,
    write_comparison,
)
from papo.evaluation.folder import EvaluationFolder
from papo.evaluation.held_out import HeldOutBenchmarks
from papo.evaluation.perception_probe import PerceptionProbe
from papo.evaluation.probe_folder import run_probe
from papo.evaluation.probe_report import summarize_probe, write_probe_summary
from papo.evaluation.progress import duration, show_progress
from papo.evaluation.references import WrittenResponses, boxed_answer, flawless_lab_response
from papo.evaluation.report import notes, terminal_table
from papo.evaluation.runner import Runner
from papo.evaluation.scores import SetScores, averages, score_responses
from papo.evaluation.settings import EvaluationSettings, check_num_responses, evaluation_settings
from papo.evaluation.store import ResponseStore, problem_identities, read_responses
from papo.evaluation.summary import summarize
from papo.evaluation.token_divergence import TokenDivergence
from papo.evaluation.vision_dependency import VisionDependency, measure_vision_dependency
from papo.evaluation.vision_report import write_vision_dependency

__all__ = [
    "Benchmark",
    "EvaluationFolder",
    "EvaluationSettings",
    "HeldOutBenchmarks",
    "PerceptionProbe",
    "ResponseAttention",
    "ResponseStore",
    "Runner",
    "SetScores",
    "TokenDivergence",
    "VisionDependency",
    "WrittenResponses",
    "averages",
    "boxed_answer",
    "check_hugging_face_folder",
    "check_num_responses",
    "compare_evaluations",
    "comparison_notes",
    "comparison_table",
    "duration",
    "evaluation_settings",
    "flawless_lab_response",
    "measure_attention",
    "measure_vision_dependency",
    "notes",
    "problem_identities",
    "read_evaluation",
    "read_responses",
    "response_attention",
    "run_probe",
    "score_responses",
    "show_progress",
    "summarize",
    "summarize_probe",
    "terminal_table",
    "write_attention",
    "write_comparison",
    "write_probe_summary",
    "write_vision_dependency",
]
