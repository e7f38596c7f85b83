"""The folder of one error analysis.

run.json             command, overrides, git commit, versions, seed
config.yaml          the resolved configuration; config.json is the same
items.json           which response stands behind each opaque id
label_page.html      for people: label the cases, export JSON, give it back as human_labels=
label_studio.json    the same cases as Label Studio tasks; label_studio.xml is their interface
labels.jsonl         every label of every labeller; exclusions.jsonl, every case without one
summary.json         all counts, shares, intervals and tests
table.csv, transitions.csv, report.md, report.html
shares*.svg          error shares per run, one chart per labeller; transitions*.svg
result.json          status
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from papo.analysis.errors.analysis import LabelledSample
from papo.analysis.errors.labellers.human import label_studio_config, label_studio_tasks
from papo.analysis.errors.labellers.label_page import LabelItem, build_label_page
from papo.analysis.errors.markdown import report_markdown
from papo.analysis.errors.misreadings import RunReadings
from papo.analysis.errors.page import error_page
from papo.analysis.errors.plots import share_chart, transition_chart
from papo.analysis.errors.sampling import Sample
from papo.analysis.errors.summary import ErrorSummary
from papo.analysis.errors.tables import shares_csv, transitions_csv
from papo.analysis.errors.taxonomy import DEFINITIONS, ERROR_CATEGORIES
from papo.reporting.charts import Chart, as_file
from papo.storage.files import write_atomically, write_json
from papo.storage.pictures import open_picture
from papo.storage.run_folder import begin_run, holds_run


class AnalysisFolder:
    """Writes the files of an analysis; it refuses to mix two.

    Hold `papo.storage.files.locked` of the folder from `open` on.

    Args:
        path: the folder; `open` makes it if it is not there.
        config: the resolved configuration, plain values only.
        config_text: the same as the YAML text to keep.
        overrides: what the command line changed.
    """

    def __init__(
        self, path: Path, *, config: Mapping[str, Any], config_text: str, overrides: list[str]
    ) -> None:
        self.path = path
        self.config = config
        self.config_text = config_text
        self.overrides = overrides

    def require_free(self) -> None:
        """Raises ValueError where the folder holds an analysis, or another kind of run."""
        if holds_run(self.path):
            raise ValueError(f"{self.path} already holds a run; choose another run_dir")

    def open(self) -> None:
        """Begins the analysis; see `require_free`."""
        self.require_free()
        begin_run(
            self.path,
            config=self.config,
            config_text=self.config_text,
            overrides=self.overrides,
        )

    def write_cases(self, sample: Sample, *, picture_side: int) -> None:
        """Writes items.json and what people label with."""
        write_json(self.path / "items.json", sample.to_json())
        pictures = {
            case.item: tuple(
                picture for path in case.images if (picture := _encode(path, picture_side))
            )
            for case in sample.cases
        }
        items = [
            LabelItem(
                item=case.item,
                question=case.question.replace("<image>", "").strip(),
                images=pictures[case.item],
                response=case.response,
                reference=case.reference,
            )
            for case in sample.blind_order()
        ]
        categories = {
            str(name): f"{DEFINITIONS[name].meaning} Example: {DEFINITIONS[name].example}"
            for name in ERROR_CATEGORIES
        }
        label_page = build_label_page(items, analysis=sample.analysis, categories=categories)
        write_atomically(self.path / "label_page.html", label_page)
        write_json(self.path / "label_studio.json", label_studio_tasks(sample, pictures))
        write_atomically(self.path / "label_studio.xml", label_studio_config())

    def write_results(
        self,
        labelled: LabelledSample,
        readings: Sequence[RunReadings],
        summary: ErrorSummary,
        *,
        report_cases: int,
    ) -> None:
        """Writes labels, numbers, tables, charts and both reports."""
        lines = [
            label.to_line() for labels in labelled.labels.values() for label in labels.values()
        ]
        write_atomically(self.path / "labels.jsonl", "".join(lines))
        write_atomically(
            self.path / "exclusions.jsonl",
            "".join(json.dumps(asdict(one)) + "\n" for one in labelled.exclusions),
        )
        write_json(self.path / "summary.json", summary.to_json())
        write_atomically(self.path / "table.csv", shares_csv(summary))
        write_atomically(self.path / "transitions.csv", transitions_csv(summary))
        write_atomically(self.path / "report.md", report_markdown(summary))
        self._write_charts(summary)
        report = error_page(summary, labelled, readings, num_cases=report_cases)
        write_atomically(self.path / "report.html", report)

    def write_result(self, status: str, **values: Any) -> None:
        """Writes result.json; `status` is finished, failed or interrupted."""
        write_json(self.path / "result.json", {"status": status, **values})

    def _write_charts(self, summary: ErrorSummary) -> None:
        charts: dict[str, list[Chart | None]] = {
            "shares": [share_chart(summary, name) for name in summary.labellers],
            "transitions": [transition_chart(one) for one in summary.transitions],
        }
        for stem, some in charts.items():
            for number, chart in enumerate(filter(None, some), start=1):
                name = stem if number == 1 else f"{stem}_{number}"
                write_atomically(self.path / f"{name}.svg", as_file([chart], width=640))


def _encode(path: Path, side: int) -> bytes | None:
    """The picture as JPEG or PNG, whichever is smaller; None where it cannot be read."""
    picture = open_picture(path, max_side=side)
    if picture is None:
        return None
    buffers = io.BytesIO(), io.BytesIO()
    picture.save(buffers[0], "PNG", optimize=True)
    picture.save(buffers[1], "JPEG", quality=88)
    return min((buffer.getvalue() for buffer in buffers), key=len)
