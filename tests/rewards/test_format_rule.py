import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papo.rewards.format_rule import follows_format

THINK_THEN_BOX = re.compile(r"<think>.*</think>.*\\boxed\{.*\}.*", re.DOTALL)
CLOSE_THINK_THEN_BOX = re.compile(r".*</think>.*\\boxed\{.*\}.*", re.DOTALL)

responses = st.lists(
    st.sampled_from(["<think>", "</think>", "\\boxed{", "}", "{", "\n", "x", " ", "<think", ">"]),
    max_size=12,
).map("".join)


@given(responses)
def test_agrees_with_the_published_expression(text):
    assert follows_format(text, "think_then_box") == bool(THINK_THEN_BOX.fullmatch(text))


@given(responses)
def test_agrees_with_the_expression_of_the_thinking_branch(text):
    published = bool(CLOSE_THINK_THEN_BOX.fullmatch(text))
    assert follows_format(text, "close_think_then_box") == published


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        ("<think>a</think> \\boxed{1}", True),
        ("<think>a\nb</think>\n\\boxed{1}\n", True),
        ("<think></think>\\boxed{}", True),
        ("<think>\\boxed{1}</think> 1", False),
        ("a <think>b</think> \\boxed{1}", False),
        ("<think>a</think> \\boxed{1", False),
        ("a</think> \\boxed{1}", False),
        ("", False),
    ],
)
def test_thinking_comes_first_and_the_box_after_it(text, follows):
    assert follows_format(text, "think_then_box") is follows


@pytest.mark.parametrize(
    "text",
    [
        "<think>" + "</think>" * 12_000,
        "<think>" + "</think>\\boxed{" * 8_000,
        "<think></think>" + "\\boxed{" * 15_000,
    ],
)
def test_hostile_text_of_100000_characters_takes_no_time(text):
    started = time.perf_counter()
    assert not follows_format(text, "think_then_box")
    assert time.perf_counter() - started < 0.5
