import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mathruler.grader import extract_boxed_content

from papo.rewards.extraction import close_up_tags, last_boxed, last_boxed_lenient

# Spells the pieces that matter far more often than random text would.
responses = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "\\boxed{", "\\boxed {", "{", "}", "<", ">", "/", " ", "\n", "\x1c",
         "\u00a0", "4", "a", "\\", "\\frac", "think"]
    ),
    max_size=25,
).map("".join)  # fmt: skip


@given(responses)
def test_last_box_is_the_one_mathruler_extracts(text):
    assert str(last_boxed(text)) == extract_boxed_content(text)


@given(st.one_of(responses, st.text()))
@example(" < \n think / > ")
def test_tags_are_closed_up_as_the_published_substitution_does(text):
    assert close_up_tags(text) == re.sub(r"\s*(<|>|/)\s*", r"\1", text)


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("", None, None),
        ("no box", None, None),
        (r"\boxed{}", "", ""),
        (r"\boxed{ 4 }", "4", "4"),
        (r"\boxed{3} then \boxed{4}", "4", "4"),
        (r"\boxed{3} then \boxed{4", None, None),
        (r"\boxed{\boxed{4}}", "4", "4"),
        (r"\boxed {4}", None, "4"),
        (r"\fbox{4}", None, "4"),
        (r"\boxed{3} so \fbox{4}", "3", "4"),
        (r"\boxed{\frac{1}{\sqrt{2}}} .", r"\frac{1}{\sqrt{2}}", r"\frac{1}{\sqrt{2}}"),
        # An escaped brace is a character to LaTeX and a brace to mathruler.
        (r"\boxed{\left\{ x \right.}", None, r"\left\{ x \right."),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}", r"\{1, 2\}"),
    ],
)
def test_the_last_complete_box_is_read(text, strict, lenient):
    assert last_boxed(text) == strict
    assert last_boxed_lenient(text) == lenient


@pytest.mark.parametrize(
    "text", [" " * 200_000, "\\boxed{" * 30_000, "{" * 200_000, "< " * 100_000, "\\" * 200_000]
)
def test_hostile_text_is_read_in_linear_time(text):
    started = time.perf_counter()
    last_boxed(close_up_tags(text))
    last_boxed_lenient(text)
    assert time.perf_counter() - started < 2.0
