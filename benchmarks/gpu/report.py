"""A run's answers as a section of docs/benchmarks.md, beside what others have published."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.step_model import (
    NUM_PROMPTS,
    Rates,
    loop_steps,
    measured_rates,
    published_work,
    read_answers,
    table,
)
from papo.storage.published import published_results

BEGIN, END = "<!-- written by `python -m benchmarks.gpu report` -->", "<!-- end -->"
NOTHING = "No GPU has run this yet: nothing on this page was measured on one."
HEAD = (*("who, on what", "seconds a step", "tokens/s a GPU", "MFU of the update", "source"),)
Answers = Sequence[Mapping[str, Any]]


def peers() -> list[tuple[str, ...]]:
    """What others say of themselves; none of it was measured here."""
    paper = published_results()["cost_per_step_seconds"]
    table_14 = "arXiv:2507.06448v5, Table 14"
    easyr1 = "EasyR1, assets/baselines.md"
    return [
        (
            "EasyR1, GRPO, Qwen2.5-VL-3B, Geometry3K, 512 x 5, 8 x H100",
            *("120 to 180", "1,200 to 1,800", "6 to 8 %", easyr1),
        ),
        (
            "EasyR1, GRPO, Qwen2.5-VL-7B, Geometry3K, 512 x 5, 8 x H100",
            *("120 to 145", "", "14 to 23 %", easyr1),
        ),
        *(
            (
                f"the authors' code, {name}, Qwen2.5-VL-{size}, ViRL39K, 384 x 5, {gpus} x H100",
                *(f"{paper[f'{key}_{size.lower()}']:.1f}", "", "", table_14),
            )
            for size, gpus in (("3B", 2), ("7B", 4))
            for name, key in (("GRPO", "grpo"), ("PAPO", "papo"))
        ),
        (
            "prime-rl, text, 4B with LoRA, rows of 65k tokens, one H100",
            *("", "4,164", "37 %", "prime-rl, benchmarks/baselines"),
        ),
    ]


def section(answers: Answers) -> str:
    """The section; without answers it says that there are none.

    Raises:
        ValueError: the answers are those of a toy run.
    """
    if not answers:
        return "\n".join([NOTHING, "", *_markdown(HEAD, peers())])
    about = next((one for one in answers if one["cell"] == "about"), {})
    if about.get("size") != "device":
        raise ValueError(
            f"answers of a GPU come from `benchmarks.gpu device`; got a run of {about.get('size')!r}"
        )
    where = next((one for one in answers if one.get("what") == "environment"), {})
    rates, names = measured_rates(answers, Rates())
    lost = [f"{one['cell']} ({one['failed']})" for one in answers if "failed" in one]
    return "\n".join(
        [
            f"`python -m benchmarks.gpu device` on {where.get('device', 'a GPU')}, experiment "
            f"{about.get('experiment')}, commit {str(about.get('commit'))[:9]}, "
            f"{_versions(where.get('versions', {}))}. One run; random weights and prompts of noise of the "
            "published shape.",
            *([f"Without an answer: {', '.join(lost)}."] if lost else []),
            "",
            *_markdown(HEAD, [*own_rows(answers), *peers()]),
            "",
            *_markdown(("cell", "answer"), _told(answers)),
            "",
            f"The model of a step with what was measured ({', '.join(names) or 'nothing'}) and the rest assumed:",
            "",
            table(published_work(), rates),
        ]
    )


def own_rows(answers: Answers) -> list[tuple[str, ...]]:
    """A published step, put together from measured parts: nobody waited for all of it."""
    found = {cell: [one for one in answers if one["cell"] == cell] for cell in ("decode", "update")}
    updates = [one for one in found["update"] if "update_s_of_384_prompts" in one]
    decodes = [one for one in found["decode"] if "ms_a_token" in one]
    if not updates or not decodes:
        return []
    update, decode = updates[-1], max(decodes, key=lambda one: one["rows"])
    work = published_work()
    num_responses = work.responses.shape[1]
    steps = loop_steps(work.responses.ravel(), decode["rows"])
    prefill = decode["prefill_s"] * NUM_PROMPTS * num_responses / decode["rows"]
    sampling = steps * decode["ms_a_token"] / 1e3 + prefill
    seconds = sampling + update["score_s_of_384_prompts"] + update["update_s_of_384_prompts"]
    tokens = work.responses.sum()
    return [
        (
            f"**papo, PAPO, Qwen2.5-VL-3B, noise, 384 x 5**, one GPU; put together of {update['prompts']} prompts "
            f"({sampling:.0f} s sampling, {update['score_s_of_384_prompts']:.0f} scoring, "
            f"{update['update_s_of_384_prompts']:.0f} update)",
            f"{seconds:.0f}",
            f"{tokens / seconds:,.0f}",
            f"{100 * update['update_mfu']:.0f} %",
            "this run",
        )
    ]


def write(page: Path, answers: Answers) -> None:
    """Puts the section between the page's marks.

    Raises:
        ValueError: the page has no marks, or the answers are a toy's.
    """
    text = page.read_text("utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} has one line {BEGIN} and one line {END}; got something else")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{section(answers)}\n{END}{after}", "utf-8")


def main(page: Path, file: Path | None) -> None:
    write(page, [] if file is None else read_answers(file))


def _told(answers: Answers) -> list[tuple[str, ...]]:
    rows = []
    for one in answers:
        left_out = {"cell", "rates", "event", "overrides"}
        if one["cell"] == "about" or "event" in one or one.get("what") == "environment":
            continue
        text = ", ".join(f"{key} {value}" for key, value in one.items() if key not in left_out)
        rows.append((one["cell"], text))
    return rows


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions
    )


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *rows)]
