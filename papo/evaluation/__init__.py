"""Evaluation: benchmarks in, graded responses, tables and what the image is worth out.

run/runner.py is the loop, scores.py the numbers; response_scorer.py has a policy score what was written,
given any view. Not here: what is kept (papo.storage.responses), loading benchmarks
(papo.data, papo.lab), grading (papo.rewards, papo.lab), anything that knows Hydra (evaluate.py).
"""

from papo.evaluation.benchmark import Benchmark
from papo.evaluation.probe.perception_probe import PerceptionProbe
from papo.evaluation.probe.references import WrittenResponses, boxed_answer, flawless_lab_response
from papo.evaluation.vision.grounding_audit import GroundingAudit

__all__ = [
    "Benchmark",
    "GroundingAudit",
    "PerceptionProbe",
    "WrittenResponses",
    "boxed_answer",
    "flawless_lab_response",
]
