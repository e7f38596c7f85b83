"""Evaluation: benchmarks in, graded responses, tables and what the image is worth out.

run/runner.py is the loop, scores.py the numbers. Not here: what is kept (papo.storage.responses), loading benchmarks
(papo.data, papo.lab), grading (papo.rewards, papo.lab), anything that knows Hydra (evaluate.py).
"""

from papo.evaluation.benchmark import Benchmark
from papo.evaluation.compare.comparison import compare_evaluations, read_evaluation
from papo.evaluation.compare.comparison_report import (
    comparison_notes,
    comparison_table,
    write_comparison,
)
from papo.evaluation.probe.attention import (
    ResponseAttention,
    measure_attention,
    response_attention,
    write_attention,
)
from papo.evaluation.probe.folder import run_probe
from papo.evaluation.probe.perception_probe import PerceptionProbe
from papo.evaluation.probe.references import WrittenResponses, boxed_answer, flawless_lab_response
from papo.evaluation.probe.report import summarize_probe, write_probe_summary
from papo.evaluation.probe.token_divergence import TokenDivergence
from papo.evaluation.progress import duration, show_progress
from papo.evaluation.run.checkpoint_files import check_hugging_face_folder
from papo.evaluation.run.folder import EvaluationFolder
from papo.evaluation.run.held_out import HeldOutBenchmarks
from papo.evaluation.run.report import notes, terminal_table
from papo.evaluation.run.runner import Runner
from papo.evaluation.run.summary import summarize
from papo.evaluation.scores import SetScores, averages, score_responses
from papo.evaluation.settings import EvaluationSettings, check_num_responses, evaluation_settings
from papo.evaluation.vision.dependency import VisionDependency, measure_vision_dependency
from papo.evaluation.vision.report import write_vision_dependency

__all__ = [
    "Benchmark",
    "EvaluationFolder",
    "EvaluationSettings",
    "HeldOutBenchmarks",
    "PerceptionProbe",
    "ResponseAttention",
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
    "read_evaluation",
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
