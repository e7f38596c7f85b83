"""Labels that people gave: read from the label page's export and from Label Studio's.

Both are files from elsewhere: every field is checked, and labels of another analysis are refused.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from papo.analysis.errors.labellers.label_page import LABELS_FORMAT
from papo.analysis.errors.sampling import Sample
from papo.analysis.errors.taxonomy import (
    DEFINITIONS,
    ERROR_CATEGORIES,
    Case,
    ErrorCategory,
    ErrorLabel,
    label_case,
)
from papo.reporting.html import data_uri
from papo.storage.files import writable

MAX_BYTES = 64 * 1024 * 1024
_MAX_TEXT = 2_000
_MAX_SECONDS = 1e9


def read_human_labels(path: Path, sample: Sample) -> list[ErrorLabel]:
    """Returns the labels of one export, made with the label page or with Label Studio.

    Args:
        path: JSON: an object of the label page's format, or Label Studio's list of tasks.
        sample: the cases that the labels have to be of.

    Raises:
        ValueError: the file is of neither format, labels another analysis, an item that is not in
            it, one item twice, or with an unknown category.
    """
    if not path.is_file():
        raise ValueError(f"there is no labels file {path}; human_labels= takes exported JSON files")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path} has more than {MAX_BYTES >> 20} MiB, which no export of labels has"
        )
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if isinstance(content, dict) and content.get("format") == LABELS_FORMAT:
        rows, labeller = _from_label_page(content), str(content.get("labeller") or "unnamed")
        found = [(content.get("analysis"), labeller, row) for row in rows]
    elif isinstance(content, list):
        found = [entry for task in content for entry in _from_label_studio(task)]
    else:
        raise ValueError(
            f"{path} is neither an export of the label page (format {LABELS_FORMAT!r}) nor of Label "
            "Studio (a list of tasks; export as JSON)"
        )
    cases = {case.item: case for case in sample.cases}
    labels = [_label(path, sample, cases, *entry) for entry in found]
    seen = set()
    for label in labels:
        if (label.item, label.labeller) in seen:
            raise ValueError(f"{path} labels item {label.item!r} twice as {label.labeller}")
        seen.add((label.item, label.labeller))
    if not labels:
        raise ValueError(f"{path} holds no label; nobody has chosen a category in it yet")
    return labels


def _from_label_page(content: dict[str, Any]) -> list[dict[str, Any]]:
    rows = content.get("labels")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("an export of the label page has a list of labels")
    return [row for row in rows if row.get("category")]


def _from_label_studio(task: Any) -> list[tuple[Any, str, dict[str, Any]]]:
    """(analysis, labeller, label) of each finished annotation of a task."""
    entries: list[tuple[Any, str, dict[str, Any]]] = []
    try:
        for annotation in task["annotations"]:
            if annotation.get("was_cancelled"):
                continue
            row: dict[str, Any] = {
                "item": task["data"]["item"],
                "seconds": annotation.get("lead_time"),
            }
            for result in annotation["result"]:
                values = result["value"].get("choices") or result["value"].get("text") or [""]
                row[result["from_name"]] = values if isinstance(values, str) else values[0]
            if row.get("category"):
                who = annotation.get("completed_by", "unnamed")
                who = who.get("email", "unnamed") if isinstance(who, dict) else who
                entries.append((task["data"].get("analysis"), str(who), row))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"a task is not of Label Studio's JSON export: {error!r}. Export as JSON, not JSON-MIN."
        ) from error
    return entries


def _label(
    path: Path,
    sample: Sample,
    cases: dict[str, Case],
    analysis: Any,
    labeller: str,
    row: dict[str, Any],
) -> ErrorLabel:
    if analysis != sample.analysis:
        raise ValueError(
            f"{path} labels the analysis {str(analysis)[:40]!r}, this one is {sample.analysis!r}. Give "
            "the runs=, view=, num_cases= and seed= it was made with, the runs in the same order."
        )
    item, category = str(row.get("item"))[:80], row.get("category")
    if item not in cases:
        raise ValueError(f"{path} labels the item {item!r}, which is not of this analysis")
    if category not in ERROR_CATEGORIES:
        raise ValueError(
            f"{path} labels item {item!r} as {str(category)[:80]!r}; categories are "
            f"{', '.join(ERROR_CATEGORIES)}"
        )
    return label_case(
        cases[item],
        ErrorCategory(category),
        labeller=f"human:{writable(labeller[:80])}",
        evidence=_text(row.get("note")),
        quote=_text(row.get("quote")),
        seconds=_seconds(row.get("seconds")),
    )


def _seconds(value: Any) -> float | None:
    # JSON as Python reads it has NaN and numbers beyond float.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= _MAX_SECONDS else None


def _text(value: Any) -> str:
    return writable(value[:_MAX_TEXT]) if isinstance(value, str) else ""


def label_studio_tasks(
    sample: Sample, pictures: dict[str, tuple[bytes, ...]]
) -> list[dict[str, Any]]:
    """Returns tasks to import into Label Studio, blind and in an order that says nothing of the run.

    Args:
        sample: the cases.
        pictures: encoded pictures per item.
    """
    return [
        {
            "data": {
                "analysis": sample.analysis,
                "item": case.item,
                "question": case.question,
                "reference": case.reference,
                "response": case.response,
                "pictures": [data_uri(picture) for picture in pictures[case.item]],
            }
        }
        for case in sample.blind_order()
    ]


def label_studio_config(categories: Sequence[ErrorCategory] = ERROR_CATEGORIES) -> str:
    """Returns the XML of Label Studio's labelling interface for `label_studio_tasks`."""
    choices = "\n".join(
        f'    <Choice value="{name}" hint="{_attribute(DEFINITIONS[name].meaning)}"/>'
        for name in categories
    )
    return f"""<View>
  <Image name="picture" valueList="$pictures"/>
  <Header value="Question"/><Text name="question" value="$question"/>
  <Header value="Right answer"/><Text name="reference" value="$reference"/>
  <Header value="The model's answer"/><Text name="response" value="$response"/>
  <Header value="What is the earliest error that makes the answer wrong?"/>
  <Choices name="category" toName="response" choice="single" required="true">
{choices}
  </Choices>
  <TextArea name="quote" toName="response" placeholder="the words where it stands" maxSubmissions="1"/>
  <TextArea name="note" toName="response" placeholder="note" maxSubmissions="1"/>
</View>
"""


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
