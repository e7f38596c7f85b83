from benchmarks import grading


def test_a_share_of_the_answers_is_hostile_and_the_references_stay():
    pairs = [(str(number), str(number)) for number in range(50)]
    mixed = grading.with_hostile(pairs, 0.1)
    assert [reference for _, reference in mixed] == [reference for _, reference in pairs]
    assert sum(answer in grading.HOSTILE for answer, _ in mixed) == 5
    assert grading.with_hostile(pairs, 0.0) == pairs


def test_every_grader_has_its_speed_and_another_checkout_stands_beside_this_one(monkeypatch):
    monkeypatch.setattr(grading, "HOSTILE", ("9**9**9**9",))
    rows = grading.measure(1, count=20, other=grading.REPOSITORY)
    per_second = [row for row in rows if row.benchmark.startswith("gradings per second")]
    assert len(per_second) == 9
    verbatim = next(row for row in per_second if row.case == "verbatim")
    assert verbatim.details["paid"] == {
        "mathruler": "20 of 20",
        "math_verify": "2 of 2",
        "combined": "20 of 20",
    }
    beside = [row for row in rows if "other checkout" in row.benchmark]
    assert [row.details["last"]["here"]["paid"] for row in beside] == [
        row.details["last"]["there"]["paid"] for row in beside
    ]
    lost = [row for row in rows if row.benchmark.startswith("seconds lost")]
    assert len(lost) == 6
    assert all("0 out of time" in row.case for row in lost)
