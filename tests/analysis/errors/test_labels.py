"""What people label with and give back, shares, agreement, and a judge corrected by true labels."""

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from analysis.evaluation_fixtures import lab_record, record, write_evaluation

from papo.analysis.errors.analysis import (
    LabelledSample,
    label_sample,
    published,
    summarize,
    true_labels,
)
from papo.analysis.errors.labellers.human import (
    label_studio_config,
    label_studio_tasks,
    read_human_labels,
)
from papo.analysis.errors.labellers.lab import LabLabels
from papo.analysis.errors.markdown import report_markdown
from papo.analysis.errors.sampling import Sample, draw_sample
from papo.analysis.errors.shares import agreement, category_shares, corrected_share
from papo.analysis.errors.summary import AskedWith, ErrorSummary, JudgeFacts
from papo.analysis.errors.tables import (
    headline_sentences,
    labeller_notes,
    shares_csv,
)
from papo.analysis.errors.taxonomy import (
    ERROR_CATEGORIES,
    ErrorCategory,
    ErrorLabel,
    Exclusion,
    label_case,
)
from papo.storage.evaluated_run import read_evaluated_runs

PERCEPTION, REASONING = ErrorCategory.PERCEPTION, ErrorCategory.REASONING


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    kinds = ["perception"] * 30 + ["reasoning"] * 10
    folder = write_evaluation(tmp_path / "a", [lab_record(i, kind) for i, kind in enumerate(kinds)])
    runs = read_evaluated_runs([folder], view="image", require_finished=True)
    return draw_sample(runs, num_cases=None, seed=1)


def write_export(path: Path, sample: Sample, rows: list[dict], **changes) -> Path:
    content = {
        "format": "papo-labels-1",
        "analysis": sample.analysis,
        "labeller": "Ada",
        "labels": rows,
    }
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


def row(sample: Sample, index: int, category: str | None = "perception", **values) -> dict:
    return {
        "item": sample.cases[index].item,
        "category": category,
        "quote": "",
        "note": "",
    } | values


def test_an_export_of_the_label_page_is_read(tmp_path, sample):
    path = write_export(
        tmp_path / "ada.json",
        sample,
        [row(sample, 0, quote="b = 9", note="the b", seconds=3.2), row(sample, 1, None)],
    )
    (label,) = read_human_labels(path, sample)
    case = sample.cases[0]
    assert label == ErrorLabel(
        item=case.item,
        run="a",
        benchmark="lab",
        problem_id=case.problem_id,
        response_index=0,
        category=PERCEPTION,
        labeller="human:Ada",
        evidence="the b",
        quote="b = 9",
        seconds=3.2,
    )


def test_what_the_scene_says_stands_before_what_a_person_says(tmp_path, sample):
    path = write_export(tmp_path / "ada.json", sample, [row(sample, 0, "calculation")])
    labelled = label_sample(sample, [LabLabels()], read_human_labels(path, sample))
    item = sample.cases[0].item
    assert labelled.labels["human:Ada"][item].category is ErrorCategory.CALCULATION
    assert true_labels(labelled)[item] == labelled.labels["lab"][item]


def test_an_export_of_label_studio_is_read(tmp_path, sample):
    tasks = label_studio_tasks(sample, {case.item: () for case in sample.cases})
    for task, category in zip(tasks, ("perception", "reasoning"), strict=False):
        task["annotations"] = [
            {"was_cancelled": True, "result": []},
            {
                "completed_by": {"email": "bo@example.org"},
                "lead_time": 12.5,
                "result": [
                    {"from_name": "category", "type": "choices", "value": {"choices": [category]}},
                    {"from_name": "quote", "type": "textarea", "value": {"text": ["a = 3"]}},
                ],
            },
        ]
    path = tmp_path / "studio.json"
    path.write_text(json.dumps(tasks[:2]))
    first, second = read_human_labels(path, sample)
    assert (first.category, second.category) == (PERCEPTION, REASONING)
    assert first.labeller == "human:bo@example.org"
    assert first.quote == "a = 3"
    assert first.seconds == 12.5
    assert first.item == tasks[0]["data"]["item"]


@pytest.mark.parametrize("seconds", ["NaN", "-1", "1e999", "1" + "0" * 400])
def test_a_time_that_no_one_can_take_is_left_out(tmp_path, sample, seconds):
    path = write_export(tmp_path / "ada.json", sample, [row(sample, 0, seconds="HERE")])
    path.write_text(path.read_text().replace('"HERE"', seconds))
    (label,) = read_human_labels(path, sample)
    assert label.seconds is None


def test_the_name_of_a_person_is_no_markup_in_the_report(tmp_path, sample):
    name = "<img src=x>\n# Ada"
    path = write_export(tmp_path / "ada.json", sample, [row(sample, 0)], labeller=name)
    labelled = label_sample(sample, [], read_human_labels(path, sample))
    report = report_markdown(summarize(labelled, seed=1, min_validated=30))
    assert "&lt;img" in report
    assert "<img" not in report
    assert "\n# Ada" not in report


def test_a_truth_that_is_no_object_is_refused(tmp_path):
    folder = write_evaluation(tmp_path / "b", [lab_record(0, "perception")], truth=[3, 4])
    with pytest.raises(ValueError, match="truth is an object or null"):
        read_evaluated_runs([folder], view="image", require_finished=True)


def test_tasks_for_label_studio_are_blind_and_its_interface_is_xml(sample):
    tasks = label_studio_tasks(sample, {case.item: () for case in sample.cases})
    assert set(tasks[0]["data"]) == {
        "analysis",
        "item",
        "question",
        "reference",
        "response",
        "pictures",
    }
    root = ElementTree.fromstring(label_studio_config())
    assert [choice.get("value") for choice in root.iter("Choice")] == list(ERROR_CATEGORIES)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: {"analysis": "0" * 16}, "labels the analysis '0000"),
        (lambda s: {"labels": [row(s, 0), row(s, 0)]}, "twice"),
        (lambda s: {"labels": [row(s, 0, "hallucination")]}, "'hallucination'"),
        (lambda s: {"labels": [row(s, 0, "correct")]}, "'correct'"),
        (lambda s: {"labels": [row(s, 0, item="nobody")]}, "not of this analysis"),
        (lambda s: {"labels": [row(s, 0, None)]}, "no label"),
        (lambda s: {"labels": "many"}, "a list of labels"),
        (lambda s: {"format": "papo-labels-2"}, "neither an export"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, sample, spoil, message):
    path = write_export(tmp_path / "x.json", sample, [row(sample, 0)], **spoil(sample))
    with pytest.raises(ValueError, match=message):
        read_human_labels(path, sample)


def test_files_that_are_no_exports_are_refused(tmp_path, sample):
    for text, message in (
        ("no json", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no label"),
        ('[{"data": 1}]', "Label Studio"),
        ("3", "neither an export"),
    ):
        path = tmp_path / "x.json"
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_human_labels(path, sample)
    with pytest.raises(ValueError, match="there is no labels file"):
        read_human_labels(tmp_path / "nothing.json", sample)


def test_shares_are_counts_with_the_wilson_interval_of_the_paper():
    shares = category_shares([PERCEPTION] * 134 + [REASONING] * 66, seed=1)
    share = shares[PERCEPTION]
    assert (share.count, share.total) == (134, 200)
    # 134 of 200: 60.2 to 73.1 %
    assert share.wilson.low == pytest.approx(0.602, abs=5e-4)
    assert share.wilson.high == pytest.approx(0.731, abs=5e-4)
    assert share.bootstrap.low == pytest.approx(share.wilson.low, abs=0.02)
    assert sum(one.wilson.value for one in shares.values()) == pytest.approx(1)
    assert category_shares([], seed=1) == {}


def test_the_papers_numbers_come_with_intervals():
    paper = published(seed=1)
    assert paper.perception.value == 0.67
    assert paper.perception.low == pytest.approx(0.602, abs=5e-4)
    reduction = paper.perception_reduction_with_papo
    assert reduction.value == 0.305
    # delta method, unpaired: about 17 to 42 %
    assert reduction.low == pytest.approx(0.17, abs=0.02)
    assert reduction.high == pytest.approx(0.42, abs=0.02)


def labels_of(
    categories: dict[str, ErrorCategory], labeller: str = "x", benchmark: str = "b"
) -> dict[str, ErrorLabel]:
    return {
        item: ErrorLabel(
            item=item,
            run="a",
            benchmark=benchmark,
            problem_id=item,
            response_index=0,
            category=category,
            labeller=labeller,
        )
        for item, category in categories.items()
    }


def test_agreement_counts_the_cases_that_both_labelled():
    first = labels_of({"1": PERCEPTION, "2": PERCEPTION, "3": REASONING, "4": REASONING})
    second = labels_of({"2": PERCEPTION, "3": REASONING, "4": PERCEPTION, "5": REASONING})
    found = agreement(first, second, names=("a", "b"), seed=1)
    assert (found.items, found.agreed) == (3, 2)
    # observed 2/3; by chance 1/3 * 2/3 + 2/3 * 1/3 = 4/9: (2/3 - 4/9) / (5/9) = 0.4
    assert found.kappa is not None
    assert found.kappa.value == pytest.approx(0.4)
    assert found.table[REASONING, PERCEPTION] == 1
    alone = agreement(first, labels_of({"9": PERCEPTION}), names=("a", "b"), seed=1)
    assert (alone.items, alone.kappa) == (0, None)


def judged_and_true(rng: np.random.Generator, *, total: int, checked: int):
    """A judge that misses 30 % of perception errors and cries 20 % wolf; truly 60 % are."""
    judged, true = {}, {}
    for index in range(total):
        is_true = rng.random() < 0.6
        says = rng.random() < (0.7 if is_true else 0.2)
        judged[str(index)] = PERCEPTION if says else REASONING
        if index < checked:
            true[str(index)] = PERCEPTION if is_true else REASONING
    return labels_of(judged), labels_of(true)


def test_a_biased_judge_is_corrected_towards_the_truth():
    judged, true = judged_and_true(np.random.default_rng(0), total=4000, checked=1500)
    raw = sum(label.category is PERCEPTION for label in judged.values()) / len(judged)
    corrected = corrected_share(judged, true, PERCEPTION, seed=1)
    assert raw == pytest.approx(0.5, abs=0.02)  # 0.6 * 0.7 + 0.4 * 0.2
    assert corrected is not None
    assert corrected.value == pytest.approx(0.6, abs=0.03)
    assert corrected.low < 0.6 < corrected.high


def test_the_corrected_share_is_the_two_groups_weighted():
    # 6 judged perception, of which 3 checked and 2 true; 4 judged not, of which 2 checked and 1 true
    judged = labels_of({str(i): PERCEPTION if i < 6 else REASONING for i in range(10)})
    true = labels_of(
        {"0": PERCEPTION, "1": PERCEPTION, "2": REASONING, "6": PERCEPTION, "7": REASONING}
    )
    corrected = corrected_share(judged, true, PERCEPTION, seed=1)
    assert corrected is not None
    assert corrected.value == pytest.approx(0.6 * 2 / 3 + 0.4 * 1 / 2)


def test_the_interval_of_a_corrected_share_covers_the_truth():
    covered = 0
    for seed in range(100):
        judged, true = judged_and_true(np.random.default_rng(seed), total=200, checked=60)
        corrected = corrected_share(judged, true, PERCEPTION, seed=seed)
        assert corrected is not None
        covered += corrected.low <= 0.6 <= corrected.high
    assert covered >= 88


def mixed_labels(rng: np.random.Generator, *, checked_photos: int):
    """A judge that knows drawn scenes and misses half of the misreadings of photographs.

    90 % of 120 errors on scenes are misreadings, all of known label, and 40 % of 120 on photographs:
    truly 65 % of all.
    """
    judged, true = {}, {}
    for benchmark, share, seen, checked in (
        ("scenes", 0.9, 0.95, 120),
        ("photos", 0.4, 0.5, checked_photos),
    ):
        for index in range(120):
            is_true = rng.random() < share
            says = rng.random() < (seen if is_true else 0.1)
            item = f"{benchmark}{index}"
            judged |= labels_of({item: PERCEPTION if says else REASONING}, benchmark=benchmark)
            if index < checked:
                category = PERCEPTION if is_true else REASONING
                true |= labels_of({item: category}, benchmark=benchmark)
    return judged, true


def test_what_is_known_of_scenes_does_not_correct_labels_of_photographs():
    values, covered = [], 0
    for seed in range(60):
        judged, true = mixed_labels(np.random.default_rng(seed), checked_photos=30)
        corrected = corrected_share(judged, true, PERCEPTION, seed=seed)
        assert corrected is not None
        values.append(corrected.value)
        covered += corrected.low <= 0.65 <= corrected.high
    # The judge alone says (0.9 * 0.95 + 0.1 * 0.1 + 0.4 * 0.5 + 0.6 * 0.1) / 2 = 0.56, and the table of
    # both benchmarks in one gives 0.68.
    assert np.mean(values) == pytest.approx(0.65, abs=0.015)
    assert covered >= 53
    judged, true = mixed_labels(np.random.default_rng(0), checked_photos=0)
    assert corrected_share(judged, true, PERCEPTION, seed=0) is None


def test_one_checked_case_of_a_group_leaves_its_share_open():
    judged = labels_of({str(index): PERCEPTION for index in range(50)})
    corrected = corrected_share(judged, labels_of({"0": PERCEPTION}), PERCEPTION, seed=1)
    assert corrected is not None
    assert corrected.value == 1.0
    # Beta(1.5, 0.5) has its 2.5 % quantile at 0.147
    assert corrected.low == pytest.approx(0.147, abs=0.02)


def test_a_judge_checked_on_the_lab_alone_is_no_headline_for_a_mixed_sample(tmp_path):
    records = [lab_record(i, "perception" if i % 4 else "reasoning") for i in range(40)]
    records += [record(i, "AB = 9, I guess.", benchmark="photos") for i in range(20)]
    folder = write_evaluation(tmp_path / "mixed", records)
    problems = (folder / "problems.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in problems]
    for one in rows:
        one["truth"] = one["truth"] if one["benchmark"] == "lab" else None
    (folder / "problems.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    runs = read_evaluated_runs([folder], view="image", require_finished=True)
    mixed = draw_sample(runs, num_cases=None, seed=1)
    known = {case.item: case for case in mixed.cases if case.benchmark == "lab"}

    def summary_of(judge, people=()):
        lab = {one.item: one for one in LabLabels().label(list(known.values()))}
        labels = {"judge:m": judge, "lab": lab}
        if people:
            labels["human:Ada"] = {label.item: label for label in people}
        labelled = LabelledSample(sample=mixed, labels=labels, exclusions=())
        return summarize(labelled, seed=1, min_validated=10)

    judge = {
        case.item: label_case(case, PERCEPTION if index % 2 else REASONING, labeller="judge:m")
        for index, case in enumerate(mixed.cases)
    }
    summary = summary_of(judge)
    judged = summary.labellers["judge:m"]
    assert (judged.validation.checked, judged.validation.unchecked) == (40, ("photos",))
    assert judged.runs["mixed"].corrected is None
    assert judged.runs["mixed"].benchmarks_corrected["photos"] is None
    # 30 of 40 lab cases are misreadings, whatever the judge says of them.
    of_lab = judged.runs["mixed"].benchmarks_corrected["lab"]["perception"]
    assert of_lab.value == pytest.approx(0.75)
    assert summary.headline.labeller is None
    assert "photos has none" in summary.headline.basis
    assert "not corrected" in report_markdown(summary)
    assert not any("misread" in sentence for sentence in headline_sentences(summary))
    header, *lines = csv.reader(io.StringIO(shares_csv(summary)))
    table = [dict(zip(header, line, strict=True)) for line in lines if line[0] == "judge:m"]
    (all_,) = [one for one in table if (one["benchmark"], one["category"]) == ("all", "perception")]
    (lab,) = [one for one in table if (one["benchmark"], one["category"]) == ("lab", "perception")]
    assert (all_["corrected"], lab["corrected"]) == ("", "0.750000")


def test_without_checked_cases_of_both_kinds_there_is_no_correction():
    judged = labels_of({"1": PERCEPTION, "2": REASONING})
    assert corrected_share(judged, labels_of({"1": PERCEPTION}), PERCEPTION, seed=1) is None
    assert corrected_share(judged, {}, PERCEPTION, seed=1) is None
    assert corrected_share({}, {}, PERCEPTION, seed=1) is None


def as_judge(sample: Sample, category: ErrorCategory = PERCEPTION) -> dict[str, ErrorLabel]:
    return {
        case.item: label_case(case, category, labeller="judge:m") for case in sample.cases[::-1]
    }


def test_a_judge_without_known_labels_is_never_a_headline(sample):
    labelled = LabelledSample(sample=sample, labels={"judge:m": as_judge(sample)}, exclusions=())
    summary = summarize(labelled, seed=1, min_validated=30)
    assert summary.headline.labeller is None
    assert "not validated" in summary.headline.basis
    report = report_markdown(summary)
    assert "Not validated" in report
    assert not any("misread" in sentence for sentence in headline_sentences(summary))
    assert summary.labellers["judge:m"].runs["a"].corrected is None


def test_a_validated_judge_is_headlined_with_its_corrected_shares(sample):
    lab = {
        label.item: label
        for label in LabLabels().label(sample.cases)
        if isinstance(label, ErrorLabel)
    }
    # The judge knows perception errors but for two; people checked all but the last five cases.
    judge = as_judge(sample)
    for case in sample.cases:
        if lab[case.item].category is REASONING:
            judge[case.item] = label_case(case, REASONING, labeller="judge:m")
    people = {
        case.item: label_case(case, lab[case.item].category, labeller="human:Ada")
        for case in sample.cases[:-5]
    }
    labels = {"judge:m": judge, "human:Ada": people}
    labelled = LabelledSample(sample=sample, labels=labels, exclusions=())
    summary = summarize(labelled, seed=1, min_validated=30)
    assert summary.headline.labeller == "human:Ada", "people come before a judge"
    judged = summary.labellers["judge:m"]
    assert (judged.validation.checked, judged.validation.validated) == (35, True)
    assert judged.runs["a"].corrected["perception"].value == pytest.approx(0.75)
    (found,) = summary.agreement
    assert (found.items, found.agreed) == (35, 35)


def test_exclusions_are_counted_by_reason(sample):
    class Refusing:
        name = "judge:no"

        def can_label(self, case):
            return True

        def label(self, cases):
            half = len(cases) // 2
            labels = [label_case(case, PERCEPTION, labeller=self.name) for case in cases[:half]]
            return labels + [
                Exclusion(item=case.item, labeller=self.name, reason="refusal")
                for case in cases[half:]
            ]

    labelled = label_sample(sample, [Refusing(), LabLabels()], [])
    summary = summarize(labelled, seed=1, min_validated=10)
    assert summary.labellers["judge:no"].excluded == {"refusal": 20}
    assert summary.labellers["judge:no"].runs["a"].labelled == 20
    assert "refusal 20" in " ".join(labeller_notes(summary.labellers["judge:no"]))
    assert summary.headline.labeller == "lab"
    assert summary.labellers["lab"].runs["a"].shares[ErrorCategory.PERCEPTION].count == 30


def test_a_judge_that_labels_nothing_is_shown_with_its_exclusions(sample):
    class Mute:
        name = "judge:mute"

        def can_label(self, case):
            return True

        def label(self, cases):
            return [
                Exclusion(item=case.item, labeller=self.name, reason="timeout") for case in cases
            ]

    summary = summarize(label_sample(sample, [Mute()], []), seed=1, min_validated=10)
    assert summary.labellers["judge:mute"].excluded == {"timeout": 40}
    assert summary.headline.labeller is None
    assert "timeout 40" in report_markdown(summary)


def test_a_summary_becomes_the_json_of_summary_json(sample):
    labelled = label_sample(sample, [LabLabels()], [])
    summary = replace(
        summarize(labelled, seed=1, min_validated=10),
        judge=(
            JudgeFacts(
                **dict.fromkeys(
                    ("requests", "from_cache", "prompt_tokens", "completion_tokens"), 1
                ),
                judge="judge:m",
                left_out_of_cache=(3,),
                dollars=None,
                asked_with=(AskedWith(parameters={"top_k": 1}, greedy=True, replies=1),),
            ),
        ),
    )
    found = summary.to_json()
    assert json.loads(json.dumps(found)) == found, "plain values alone"
    assert list(found) == [field.name for field in fields(ErrorSummary)]
    lab = found["labellers"]["lab"]
    assert set(lab) == {"kind", "runs", "excluded", "server_said", "seconds"}, "no judge, no checks"
    share = summary.labellers["lab"].runs["a"].shares[PERCEPTION]
    assert lab["runs"]["a"]["shares"]["perception"] == {
        "count": share.count,
        "share": share.wilson.value,
        "wilson": [share.wilson.low, share.wilson.high],
        "bootstrap": [share.bootstrap.low, share.bootstrap.high],
    }
    assert found["judge"][0]["asked_with"] == [
        {"parameters": {"top_k": 1}, "greedy": True, "replies": 1}
    ]
    judged = LabelledSample(sample=sample, labels={"judge:m": as_judge(sample)}, exclusions=())
    judge = summarize(judged, seed=1, min_validated=30).to_json()["labellers"]["judge:m"]
    assert (judge["checked"], judge["needed"], judge["validated"]) == (0, 30, False)
