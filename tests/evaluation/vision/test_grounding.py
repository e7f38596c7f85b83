"""The numbers of an audit by hand, and what a policy is asked for them."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from evaluation.probe.test_perception_probe import benchmark, next_token_logprobs, record
from model_fixtures import noise_image, problem, tiny_policy
from PIL import Image

from papo.evaluation import GroundingAudit, boxed_answer
from papo.evaluation.grounding_measures import COLUMNS, MEASURES, measured_text
from papo.evaluation.vision.grounding import measure_grounding
from papo.evaluation.vision.grounding_report import grounding_page
from papo.evaluation.vision.scored_views import ViewDrops
from papo.masking import BlankMask, EvidenceControlMask, EvidenceMask
from papo.parallel import Ranks
from papo.statistics import repeats_needed
from papo.types import ResponseRecord, derive_seed
from papo.views import BlankView, Item, RemovedView, SwappedView, hide, mask_seed

CONTROL = EvidenceControlMask(seed=0)
SHARES = {"p": [True, True], "q": [True, False], "r": [False, False]}


def drops(problem_id, kind="own", index=0, *, kl=(0.0, 1.0), logprob=-3.0, **found):
    return ViewDrops(
        benchmark="some",
        problem_id=problem_id,
        kind=kind,
        response_index=index,
        same_length=True if kind == "own" else None,
        tokens=tuple("ab"[: len(kl)]),
        kl=kl,
        logprob=logprob,
        drops=found,
    )


def graded(view, shares):
    for name, row in shares.items():
        for index, right in enumerate(row):
            one = record(name, index, "x", view=view).to_line()
            yield one.replace('"correct": true', f'"correct": {str(right).lower()}')


def measured(lines, *, views=None, noise_floor=-20.0):
    shown = {"image": SHARES, **(views or {})}
    records = [ResponseRecord.from_line(x) for v, s in shown.items() for x in graded(v, s)]
    (found,) = measure_grounding(records, lines, noise_floor=noise_floor, bootstrap_seed=0)
    return found


def value(found, name):
    return found.measures[name].value


def test_the_numbers_of_three_problems_by_hand():
    blank = {"p": [True, False], "q": [False, False], "r": [False, True]}
    found = measured(
        [
            drops("p", "reference", blank=1.0, swapped=4.0),
            drops("q", "reference", blank=-0.5, swapped=2.0),
            drops("r", "reference", blank=9.0, logprob=-21.0),
            drops(
                "p", index=0, blank=2.0, kl=(0.0, 1.0), evidence=5.0, control_0=1.0, control_1=2.0
            ),
            drops(
                "p", index=1, blank=-1.0, kl=(1.0, 1.0), evidence=3.0, control_0=0.0, control_1=2.0
            ),
            drops(
                "q", index=0, blank=1.0, kl=(0.0, 0.0), evidence=0.0, control_0=1.0, control_1=3.0
            ),
            drops(
                "q", index=1, blank=1.0, kl=(0.5, 1.5), evidence=0.0, control_0=2.0, control_1=4.0
            ),
        ],
        views={"blank": blank},
    )
    assert value(found, "accuracy") == pytest.approx(0.5)
    assert value(found, "accuracy_blank") == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert value(found, "drop_blank") == pytest.approx(0.5 - 1 / 3)
    # Of 1.5 problems' worth of right answers, p's would be right again half of the time.
    assert value(found, "blind_correct") == pytest.approx(0.5 / 1.5)
    # q's reference is likelier blind, r's too unlikely to say anything: 1 of 1.5.
    assert value(found, "vdf") == pytest.approx(1.0 / 1.5)
    assert value(found, "margin_blank") == pytest.approx((1.0 - 0.5) / 2)
    assert value(found, "margin_swapped") == pytest.approx(3.0)
    # Both of p's are right, the first of q's: p half, q whole.
    assert value(found, "own_likelier") == pytest.approx((0.5 + 1.0) / 2)
    assert value(found, "perception_kl") == pytest.approx(((0.5 + 1.0) / 2 + (0.0 + 1.0) / 2) / 2)
    # Of q's first response there is no KL to carry.
    assert value(found, "kl_top_fifth") == pytest.approx(((1.0 + 0.5) / 2 + 0.75) / 2)
    assert value(found, "evidence_drop") == pytest.approx((4.0 + 0.0) / 2)
    assert value(found, "control_drop") == pytest.approx((1.25 + 2.5) / 2)
    assert value(found, "evidence_margin") == pytest.approx((2.75 - 2.5) / 2)
    assert value(found, "evidence_above") == pytest.approx((1.0 + 0.0) / 2)
    assert "reference_margin" not in found.measures
    assert found.counts["num_boxed"] == found.counts["num_controls"] == 2
    assert any("1 of 3 references are less likely than e^-20" in note for note in found.notes)


def test_a_row_has_all_columns_whatever_was_measured():
    for lines in ([], [drops("p", blank=1.0)], [drops("p", "reference", swapped=1.0, kl=())]):
        row = measured(lines).row()
        assert tuple(row) == COLUMNS[4:]
    assert measured([]).row()["evidence_margin"] is None
    assert measured([]).row()["num_boxed"] is None


def test_what_is_missing_is_said():
    notes = " | ".join(measured([]).notes)
    assert "nothing could be scored: no problem has a picture" in notes
    notes = " | ".join(measured([drops("p", blank=1.0), drops("q", kl=())]).notes)
    assert "no problem says where its evidence is" in notes
    assert "empty, not 0" in notes
    assert "1 problems look the same with a black picture" in notes
    assert "2 of 3 problems were scored" in notes
    assert "no reference was scored (audit.references)" in notes
    assert "3 of 3 problems have no response in the view swapped" in notes


def test_a_problem_without_room_for_a_control_is_counted_as_such():
    found = measured(
        [
            drops("p", index=0, kl=(), evidence=5.0, control_0=1.0),
            drops("q", index=0, kl=(), evidence=9.0),
            drops("q", index=1, kl=(), evidence=7.0),
            # Its evidence was black already.
            drops("r", index=0, kl=(), control_0=1.0),
        ]
    )
    assert (found.counts["num_boxed"], found.counts["num_no_control"]) == (1, 1)
    assert value(found, "evidence_margin") == pytest.approx(4.0)
    notes = " | ".join(found.notes)
    assert (
        "no control: of 2 scored problems that say where their evidence is, 1 have no room" in notes
    )
    assert "2 of 3 scored problems say where their evidence is" in notes


def test_one_problem_has_no_intervals_and_none_right_no_share_of_them():
    records = [
        ResponseRecord.from_line(line)
        for view in ("image", "blank")
        for line in graded(view, {"p": [True, False]})
    ]
    lines = [drops("p", blank=1.0), drops("p", "reference", blank=2.0)]
    (found,) = measure_grounding(records, lines, noise_floor=None, bootstrap_seed=0)
    assert {one.low for one in found.measures.values()} == {None}
    assert "one problem: no interval" in found.notes
    row = found.row()
    shown = [measured_text(one, row) for one in MEASURES if one.name in found.measures]
    assert all("[no interval]" in text for text in shown)
    wrong = [ResponseRecord.from_line(x) for x in graded("image", {"p": [False]})]
    (found,) = measure_grounding(wrong, lines, noise_floor=None, bootstrap_seed=0)
    assert not {"vdf", "blind_correct", "own_likelier"} & set(found.measures)


def test_intervals_hold_their_numbers():
    found = measured(
        [
            drops(name, "reference", blank=one)
            for name, one in zip("pqr", (1.0, -2.0, 3.0), strict=True)
        ],
        views={"blank": SHARES},
    )
    for name, one in found.measures.items():
        assert one.low <= one.value <= one.high, name
        assert one.low < one.high, name


def test_the_page_defines_every_number_and_escapes_what_models_write():
    found = measured([drops("p", blank=1.0, evidence=3.0, control_0=1.0)])
    row = {"checkpoint": "<b>", "weights": "w", "benchmark": "some", "label": "L", **found.row()}
    text = grounding_page([found], [row])
    assert "&lt;b&gt;" in text
    for one in MEASURES:
        assert f">{one.name}<" in text


def test_repeats_needed_is_spearman_and_brown():
    # Between items 4 - 2 / 2 = 3, within 2: the mean of k has 3 / (3 + 2 / k), at least 0.9 from k = 6 on.
    items = [[-3.0, -1.0], [1.0, 3.0], [-1.0, 1.0]]
    assert repeats_needed(items) == math.ceil(9 * 2 / 3)
    assert repeats_needed([[1.0, 1.0], [5.0, 5.0]]) == 1
    assert repeats_needed([[1.0, 2.0]]) is None
    assert repeats_needed([[0.0, 9.0], [1.0, 8.0]]) is None
    assert repeats_needed([[3.0, 3.0], [3.0, 3.0]]) is None


def test_so_many_repeats_have_the_reliability():
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(4000, 1, generator=generator)

    def means(k):
        return own + 2.0 * torch.randn(4000, k, generator=generator)

    needed = repeats_needed(means(8).tolist())
    assert needed == pytest.approx(36, abs=3)
    first, second = means(needed).mean(1), means(needed).mean(1)
    assert float(torch.corrcoef(torch.stack([first, second]))[0, 1]) == pytest.approx(0.9, abs=0.01)


# --- with a policy


@pytest.fixture(scope="module")
def policy():
    return tiny_policy()


def with_boxes(name, boxes, seed, answer):
    one = problem(
        "<image> How many?", images=(noise_image(112, 112, seed),), answer=answer, id=name
    )
    return replace(one, truth=None if boxes is None else {"boxes": boxes})


def make_audit(**changes):
    settings = {
        "views": {
            "blank": BlankView(mask=BlankMask()),
            "removed": RemovedView(),
            "swapped": SwappedView(seed=0),
        },
        "evidence": EvidenceMask(),
        "control": CONTROL,
        "num_controls": 2,
        "num_problems": None,
        "num_responses": 1,
        "references": boxed_answer,
        "tokens_per_pass": 10_000,
        "seed": 0,
        "noise_floor": None,
    }
    return GroundingAudit(**{**settings, **changes})


def audited(policy, audit, problems, records=()):
    found = audit.run(policy, benchmark(problems), records, done=frozenset(), ranks=Ranks())
    return [one for some in found for one in some]


@torch.no_grad()
def naive_logprob(policy, group, text):
    tokenizer = policy.encoder.tokenizer
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    logprobs = next_token_logprobs(policy, group, ids)
    return sum(float(logprobs[t, token]) for t, token in enumerate(ids))


def test_drops_are_those_of_the_whole_responses(policy):
    problems = [
        with_boxes("a", {"x": (0, 0, 28, 28)}, 1, "12"),
        with_boxes("b", {"x": (56, 56, 84, 112)}, 2, "4"),
    ]
    found = audited(policy, make_audit(), problems, [record("a", 0, "1 2 3")])
    assert [(one.problem_id, one.kind) for one in found] == [
        ("a", "own"),
        ("a", "reference"),
        ("b", "reference"),
    ]
    audit = make_audit()
    for one in found:
        index = "ab".index(one.problem_id)
        of = problems[index]
        text = "1 2 3" if one.kind == "own" else boxed_answer("some", of)
        (group,) = policy.encode([of])
        seed = derive_seed(0, "some", of.id)
        item = Item(benchmark="some", problems=problems, index=index, problem=of, seed=seed)
        shown = {name: view(item, policy, num_responses=1)[0] for name, view in audit.views.items()}
        shown["evidence"] = hide(group, EvidenceMask(), policy, seed=seed)
        for control in range(2):
            shown[f"control_{control}"] = hide(
                group, CONTROL, policy, seed=mask_seed(seed, CONTROL, control)
            )
        image = naive_logprob(policy, group, text)
        assert one.logprob == pytest.approx(image, rel=1e-4)
        assert set(one.drops) == set(shown)
        for name, prompt in shown.items():
            expected = image - naive_logprob(policy, prompt, text)
            assert one.drops[name] == pytest.approx(expected, abs=2e-4), name
        assert len(one.kl) == len(one.tokens)


def test_one_call_scores_all_views_and_a_view_is_one_pass(policy, monkeypatch):
    calls, passes = [], Counter()
    measure, hidden = policy.measure, policy._response_hidden

    def counted(groups, *arguments, wanted):
        calls.append((len(groups), {view for view, _ in wanted}))
        return measure(groups, *arguments, wanted=wanted)

    def passed(*arguments, **keywords):
        passes["hidden"] += 1
        return hidden(*arguments, **keywords)

    monkeypatch.setattr(policy, "measure", counted)
    monkeypatch.setattr(policy, "_response_hidden", passed)
    problems = [with_boxes(name, {"x": (0, 0, 28, 28)}, n, "12") for n, name in enumerate("abc")]
    audited(policy, make_audit(num_responses=0), problems)
    views = {"image", "blank", "removed", "swapped", "evidence", "control_0", "control_1"}
    assert calls == [(3, views)]
    assert passes["hidden"] == len(views)


def test_problems_are_scored_as_far_as_they_can_be_shown(policy):
    black = Image.new("RGB", (56, 56))
    problems = [
        problem("No picture.", images=(), answer="3", id="text"),
        problem(
            "<image><image> Which?", images=(noise_image(56, 84, 2),) * 2, answer="4", id="two"
        ),
        problem("<image> Is it dark?", images=(black,), answer="yes", id="black"),
        replace(with_boxes("full", None, 3, "1"), truth={"boxes": {"x": (0, 0, 112, 112)}}),
        replace(with_boxes("null", None, 4, "(A)"), truth={"boxes": {"x": None}}),
    ]
    found = {one.problem_id: one for one in audited(policy, make_audit(num_responses=0), problems)}
    assert set(found["two"].drops) == {"blank", "removed"}
    # Black already: hiding it says nothing, and no 0 is written.
    assert "blank" not in found["black"].drops
    assert found["black"].kl == ()
    # No room for a control beside evidence that is everywhere: counted, and compared with nothing.
    assert found["full"].lacks_control
    assert found["full"].evidence_margin is None
    assert "evidence" not in found["null"].drops
    assert not found["null"].lacks_control
    assert "text" not in found


def test_a_reference_that_tokens_do_not_spell_is_left_out_and_named(policy, caplog, monkeypatch):
    tokenizer = policy.encoder.tokenizer
    original = type(tokenizer).decode

    def lossy(self, ids, **keywords):
        return original(self, ids, **keywords).replace("7", "")

    monkeypatch.setattr(type(tokenizer), "decode", lossy)
    problems = [with_boxes("a", None, 1, "12"), with_boxes("b", None, 2, "17")]
    found = audited(policy, make_audit(num_responses=0), problems)
    assert [one.problem_id for one in found] == ["a"]
    assert "left out of the audit: the reference, the answer to 'b'" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_controls": 0}, "audit.num_controls"),
        ({"num_problems": 0}, "audit.num_problems"),
        ({"num_responses": 0, "references": None}, "audit.num_responses"),
        ({"tokens_per_pass": 0}, "audit.tokens_per_pass"),
        ({"noise_floor": 0.5}, "audit.noise_floor"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_audit(**changes)


def test_a_line_is_read_back_as_it_was():
    one = drops("p", blank=0.25, kl=(1e-7, 2.0))
    assert ViewDrops.from_line(one.to_line()) == one


def test_the_page_says_of_each_number_what_the_code_says():
    page = (Path(__file__).parents[3] / "docs" / "grounding_audit.md").read_text("utf-8")
    for one in MEASURES:
        cannot = one.cannot_say[0].upper() + one.cannot_say[1:]
        cells = [f"`{one.name}`", one.unit, one.says, f"{cannot}."]
        assert f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" in page
