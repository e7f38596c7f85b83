import pytest
import torch

from benchmarks import prefix_grouper
from benchmarks.contest import PeerMissing
from benchmarks.prefix_grouper import TextGroup, measure


@pytest.fixture(scope="module")
def group():
    return TextGroup(prompt_tokens=40, response_tokens=6, num_responses=3)


def test_both_sides_score_the_same_text_alike(group):
    assert len(group.groups[0].prompt_ids) == 40
    ours, theirs = group.logprobs("shared"), group.logprobs("repeated")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_peer_scores_what_repeated_prompts_do(group):
    try:
        prefix_grouper.prefix_grouper()
    except PeerMissing as missing:
        pytest.skip(str(missing))
    group.step("repeated")
    repeated = {
        name: p.grad.clone() for name, p in group.other.named_parameters() if p.grad is not None
    }
    group.step("prefix_grouper")
    torch.testing.assert_close(
        group.logprobs("prefix_grouper"), group.logprobs("repeated"), rtol=0, atol=1e-5
    )
    for name, gradient in repeated.items():
        torch.testing.assert_close(
            group.other.get_parameter(name).grad, gradient, rtol=0, atol=1e-5
        )


def test_without_the_package_its_rows_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(prefix_grouper, "FOLDER", tmp_path / "missing")
    rows = measure(1)
    assert {row.verdict for row in rows} == {"not measured"}
    assert len(rows) == 2 * len(prefix_grouper.CASES)
    assert all("`make peers` fetches it" in row.note for row in rows)
