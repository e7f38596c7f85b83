"""What an error analysis found, in words and tables, and as CSV; reports put them on their pages."""

from collections.abc import Sequence
from typing import Any

from papo.analysis.errors.summary import ErrorSummary, JudgeFacts, LabellerSummary, Validation
from papo.analysis.errors.taxonomy import ERROR_CATEGORIES, ErrorCategory
from papo.analysis.errors.transitions import Transitions
from papo.reporting.csv_text import csv_text
from papo.reporting.numbers import interval_text, percent
from papo.statistics import Interval

LOWER_BOUND = (
    "Rules find only statements that the annotation refutes, so their perception share is a lower "
    "bound, and 'other' means that no rule found anything."
)

REGRESSION = (
    "Slots were drawn whether or not the first run answered them right, so the totals compare the runs "
    "fairly. A single row does not: slots picked for their error would also improve if the same policy "
    "were sampled again."
)


def shares_csv(summary: ErrorSummary) -> str:
    """Returns one row per labeller, run, benchmark ("all" for all together) and category."""
    rows: list[Sequence[Any]] = [
        (
            *("labeller", "run", "benchmark", "category", "count", "labelled"),
            *("share", "low", "high", "corrected", "corrected_low", "corrected_high"),
        )
    ]
    for name, labeller in summary.labellers.items():
        for run, found in labeller.runs.items():
            of_benchmarks = {"all": found.corrected, **found.benchmarks_corrected}
            for benchmark, shares in {"all": found.shares, **found.benchmarks}.items():
                labelled = sum(one.count for one in shares.values())
                corrected = of_benchmarks[benchmark] or {}
                rows.extend(
                    (
                        *(name, run, benchmark, category, one.count, labelled),
                        *(f"{value:.6f}" for value in _ends(one.wilson)),
                        *_interval_cells(corrected.get(category)),
                    )
                    for category, one in shares.items()
                )
    return csv_text(rows)


def _interval_cells(interval: Interval | None) -> list[str]:
    return [""] * 3 if interval is None else [f"{value:.6f}" for value in _ends(interval)]


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def transitions_csv(summary: ErrorSummary) -> str:
    """Returns one row per labeller, pair of runs, and categories before and after."""
    rows: list[Sequence[Any]] = [
        ("labeller", "before_run", "after_run", "before", "after", "slots")
    ]
    for one in summary.transitions:
        rows.extend(
            (
                *(one.labeller, one.before, one.after),
                *(str(before), str(after), slots),
            )
            for (before, after), slots in sorted(one.counts.items())
        )
    return csv_text(rows)


def headline_sentences(summary: ErrorSummary) -> list[str]:
    """Returns what the analysis found, or why it has no headline."""
    wrong = ", ".join(f"{run} {count}" for run, count in summary.wrong.items())
    first = f"{summary.slots_drawn} response slots were drawn; wrong answers: {wrong}."
    name, basis = summary.headline.labeller, summary.headline.basis
    if name is None:
        return [first, f"No headline: {basis}"]
    sentences = [first, f"Labelled by {name} ({basis})."]
    for run in summary.runs:
        if perception := headline_share(summary, run, ErrorCategory.PERCEPTION):
            sentences.append(
                f"{run}: {per_cent(perception)} of the wrong answers misread the picture."
            )
        elif summary.labellers[name].runs[run].labelled:
            sentences.append(
                f"{run}: no share of misreadings. Of the cases that the judge called so, or of the others, "
                "some benchmark has none of known label."
            )
    sentences += [
        f"{one.before} to {one.after}: {sentence}"
        for one in _headline_transitions(summary)
        for sentence in transition_sentences(one)[:1]
    ]
    if lucky := summary.right_although_misread:
        counts = ", ".join(f"{run} {count}" for run, count in lucky.items())
        sentences.append(f"Right answers that rest on a wrong reading: {counts}.")
    return sentences


def headline_share(summary: ErrorSummary, run: str, category: ErrorCategory) -> Interval | None:
    """Returns the share of the headline's labeller; corrected where it is a judge."""
    name = summary.headline.labeller
    if name is None:
        return None
    found = summary.labellers[name].runs[run]
    if summary.labellers[name].kind == "judge":
        return (found.corrected or {}).get(category)
    return found.shares[category].wilson if found.shares else None


def _headline_transitions(summary: ErrorSummary) -> list[Transitions]:
    """Those of the headline's labeller that are a result.

    A judge's are not corrected. Where labels are missing, slots that are wrong in both runs are missed
    more often than those wrong in one, which makes every change look larger.
    """
    name = summary.headline.labeller
    return [
        one
        for one in summary.transitions
        if one.labeller == name and summary.labellers[name].kind != "judge" and not one.left_out
    ]


def category_name(category: str) -> str:
    """Returns a category in words."""
    return category.replace("_", " ")


Table = tuple[Sequence[str], list[list[str]]]
"""Headings, and rows of as many cells."""


def share_table(summary: ErrorSummary, name: str) -> Table:
    """Returns a row per category and a column per run: share in per cent with interval, and count."""
    labeller = summary.labellers[name]
    is_judge = labeller.kind == "judge"
    headings = ["category"]
    for run in summary.runs:
        headings.append(f"{run}, % [95 %] (cases)")
        if is_judge:
            headings.append(f"{run}, corrected")
    rows = []
    for category in ERROR_CATEGORIES:
        row = [category_name(category)]
        for run in summary.runs:
            found = labeller.runs[run]
            one = found.shares.get(category)
            row.append("-" if one is None else f"{percent(one.wilson)} ({one.count})")
            if is_judge:
                corrected = (found.corrected or {}).get(category)
                row.append("not corrected" if corrected is None else per_cent(corrected))
        rows.append(row)
    rows.append(["labelled"])
    for run in summary.runs:
        rows[-1].append(str(labeller.runs[run].labelled))
        if is_judge:
            rows[-1].append("")
    return headings, rows


def validation(checks: Validation) -> str:
    """Returns with how many known labels a judge's were compared, and where none are known."""
    sentence = f"{checks.checked} of its cases have a known label, {checks.needed} are needed"
    if checks.unchecked:
        return f"{sentence}, and some of every benchmark; {', '.join(checks.unchecked)} has none."
    return f"{sentence}."


def labeller_notes(labeller: LabellerSummary) -> list[str]:
    """Returns what has to be known of a labeller's shares."""
    notes = []
    if checks := labeller.validation:
        judgement = "Validated." if checks.validated else "**Not validated.**"
        notes.append(f"{judgement} {validation(checks)}")
    if labeller.kind == "geometry":
        notes.append(LOWER_BOUND)
    if labeller.excluded:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(labeller.excluded.items()))
        notes.append(f"Cases without a label: {reasons}.")
    notes.extend(f"The server said: {words}" for words in labeller.server_said)
    if labeller.seconds:
        notes.append(f"Labelled in {labeller.seconds / 60:.0f} minutes.")
    return notes


def asked_sentences(summary: ErrorSummary, name: str) -> list[str]:
    """Returns the sentences of the judge of this name; none where it is no judge."""
    return [
        sentence for one in summary.judge if one.judge == name for sentence in judge_sentences(one)
    ]


def judge_sentences(one: JudgeFacts) -> list[str]:
    """Returns what a judge was asked, with which parameters, and what it cost."""
    cost = "" if one.dollars is None else f", {one.dollars:.2f} dollars"
    sentences = [
        f"{one.judge}: {one.requests} replies asked for, {one.from_cache} kept from before, "
        f"{one.prompt_tokens} + {one.completion_tokens} tokens{cost}."
    ]
    if damaged := one.left_out_of_cache:
        sentences.append(
            f"{one.judge}: {len(damaged)} lines of replies.jsonl in judge.cache hold no reply and were "
            f"left out, the first is line {damaged[0]}."
        )
    for way in one.asked_with:
        sent = ", ".join(f"{name}={value}" for name, value in way.parameters.items())
        sampled = "" if way.greedy else "; not greedy, so that asking again may label otherwise"
        sentences.append(f"{one.judge}: {way.replies} replies were asked for with {sent}{sampled}.")
    return sentences


def transition_table(one: Transitions) -> Table:
    """Returns a row per category of the first run, a column per category of the second, both only where used."""
    counts = one.counts
    used = [category for category in ErrorCategory if any(category in pair for pair in counts)]
    rows = []
    for before in used:
        row = [counts.get((before, after), 0) for after in used]
        rows.append([category_name(before), *map(str, row), str(sum(row))])
    totals = [sum(counts.get((before, after), 0) for before in used) for after in used]
    rows.append(["all", *map(str, totals), str(sum(totals))])
    return [f"{one.before} \\ {one.after}", *map(category_name, used), "all"], rows


def transition_sentences(one: Transitions) -> list[str]:
    """Returns the tests in words."""
    perception, correct = one.perception, one.correct
    reduction = one.reduction
    changed = (
        ""
        if reduction is None
        else f", {per_cent(reduction)} fewer"
        if reduction.value >= 0
        else f", {per_cent(reduction.negated())} more"
    )
    sentences = [
        f"perception errors went from {perception.before} to {perception.after} of "
        f"{one.units} slots{changed}; McNemar {perception.only_before} against "
        f"{perception.only_after}, p {p_value(perception.p_value)}.",
        f"right answers went from {correct.before} to {correct.after} of "
        f"{one.units + one.left_out} slots; McNemar "
        f"{correct.only_before} lost against {correct.only_after} won, "
        f"p {p_value(correct.p_value)}. Whole table: Bowker p {p_value(one.symmetry_p)}.",
    ]
    if one.left_out:
        sentences.append(
            f"{one.left_out} slots are left out of the table: a wrong answer has no label. Slots wrong "
            "in both runs are missed more often, so the change of perception errors is overstated."
        )
    return sentences


def agreement_table(summary: ErrorSummary) -> Table:
    """Returns a row per pair of labellers."""
    rows = [
        [
            one.first,
            one.second,
            str(one.items),
            f"{100 * one.agreed / one.items:.1f}",
            "-" if one.kappa is None else interval_text(one.kappa, "{:.2f}".format),
        ]
        for one in summary.agreement
    ]
    return ["first", "second", "cases", "agree, %", "Cohen's kappa [95 %]"], rows


def paper_table(summary: ErrorSummary) -> Table:
    """Returns the paper's two numbers and the measured ones, with intervals."""
    paper = summary.published
    rows = [
        [
            f"the paper ({paper.cases} cases, GRPO 3B; then PAPO)",
            per_cent(paper.perception),
            per_cent(paper.perception_reduction_with_papo),
        ]
    ]
    name = summary.headline.labeller
    reductions = {one.after: one.reduction for one in _headline_transitions(summary)}
    for run in summary.runs:
        share = headline_share(summary, run, ErrorCategory.PERCEPTION)
        reduction = reductions.get(run)
        rows.append(
            [
                f"{run} ({name})" if name else run,
                per_cent(share) if share else "no headline",
                per_cent(reduction) if reduction else "-",
            ]
        )
    return ["", "perception errors of the wrong answers, %", "fewer perception errors, %"], rows


def per_cent(share: Interval) -> str:
    """Returns e.g. "67.0 [60.2, 73.1] %"."""
    return f"{percent(share)} %"


def p_value(p: float) -> str:
    """Returns e.g. "= 0.039" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
