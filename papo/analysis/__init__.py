"""Analysis: finished runs in; what they misread, how they differ, and pages to look at, out."""

from papo.analysis.analysis_folder import AnalysisFolder
from papo.analysis.error_analysis import LabelledSample, label_sample, summarize
from papo.analysis.error_plots import plot_shares, plot_transitions
from papo.analysis.error_report import (
    headline_sentences,
    judge_sentences,
    labeller_notes,
    share_table,
    transition_sentences,
    transition_table,
)
from papo.analysis.evaluated_run import EvaluatedRun, read_evaluated_runs
from papo.analysis.geometry_labels import GeometryLabels
from papo.analysis.human_labels import read_human_labels
from papo.analysis.lab_labels import LabLabels
from papo.analysis.misreading_report import fact_table, misreading_sentences, mistake_table
from papo.analysis.misreadings import RunReadings, read_readings
from papo.analysis.sampling import Sample, draw_sample
from papo.analysis.taxonomy import Case, ErrorCategory, ErrorLabel, Exclusion, Labeller

__all__ = [
    "AnalysisFolder",
    "Case",
    "ErrorCategory",
    "ErrorLabel",
    "EvaluatedRun",
    "Exclusion",
    "GeometryLabels",
    "LabLabels",
    "LabelledSample",
    "Labeller",
    "RunReadings",
    "Sample",
    "draw_sample",
    "fact_table",
    "headline_sentences",
    "judge_sentences",
    "label_sample",
    "labeller_notes",
    "misreading_sentences",
    "mistake_table",
    "plot_shares",
    "plot_transitions",
    "read_evaluated_runs",
    "read_human_labels",
    "read_readings",
    "share_table",
    "summarize",
    "transition_sentences",
    "transition_table",
]
