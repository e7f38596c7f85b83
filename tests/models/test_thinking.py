"""Chat templates that think, do not, or can do either: what the policy has written is the whole response."""

import pytest
import torch
from model_fixtures import problem, tiny_policy

from papo.rewards.format_rule import follows_format

# How Qwen3.5's published templates open a response: 4B and 9B think unless told not to, 0.8B and 2B when told to.
THINKS = (
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}"
)
DOES_NOT = (
    "{% if enable_thinking is defined and enable_thinking is true %}<think>\n"
    "{% else %}<think>\n\n</think>\n\n{% endif %}"
)
THOUGHT = "it is 1</think> \\boxed{1}"


def policy_with(template, *, tags=None, told=None):
    """A policy whose template opens a response so, and whose tokenizer has think tags of this kind, if any."""
    policy = tiny_policy()
    tokenizer = policy.encoder.tokenizer
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "assistant\n{% endif %}", f"assistant\n{template}{{% endif %}}"
    )
    if tags is not None:
        tokenizer.add_tokens(["<think>", "</think>"], special_tokens=tags == "special")
    encoder = policy.encoder
    policy.encoder = type(encoder)(
        tokenizer=tokenizer, family_pictures=encoder.family_pictures, thinking=told
    )
    return policy


def written(policy, text):
    """What graders are given where the policy writes this."""
    ids = policy.encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    (response,) = policy.decode_responses(
        policy.encode([problem()]),
        torch.tensor([ids]),
        torch.ones(1, len(ids), dtype=torch.bool),
    )
    return response


@pytest.mark.parametrize("tags", [None, "plain", "special"])
@pytest.mark.parametrize("rule", ["think_then_box", "close_think_then_box"])
def test_a_thought_is_seen_whether_its_tags_are_text_tokens_or_special_ones(rule, tags):
    policy = policy_with("", tags=tags)
    assert follows_format(written(policy, "<think>" + THOUGHT), rule)
    assert not follows_format(written(policy, "it is 1 \\boxed{1}"), rule)
    opened = policy_with("<think>\n", tags=tags)
    assert written(opened, THOUGHT) == "<think>\n" + THOUGHT
    assert follows_format(written(opened, THOUGHT), rule)
    assert not follows_format(written(opened, "it is 1 \\boxed{1}"), rule)


def test_the_end_of_a_turn_is_no_part_of_the_text():
    policy = policy_with("", tags="special")
    assert written(policy, "<think>a</think> \\boxed{1}<|im_end|>") == "<think>a</think> \\boxed{1}"


@pytest.mark.parametrize(
    ("template", "told", "opens"),
    [
        (THINKS, None, "<think>\n"),
        (THINKS, True, "<think>\n"),
        (THINKS, False, "<think>\n\n</think>\n\n"),
        (DOES_NOT, None, "<think>\n\n</think>\n\n"),
        (DOES_NOT, True, "<think>\n"),
        (DOES_NOT, False, "<think>\n\n</think>\n\n"),
    ],
)
def test_a_template_that_can_do_either_does_what_it_is_told(template, told, opens):
    policy = policy_with(template, told=told)
    assert policy.encoder.render(problem()).endswith(f"assistant\n{opens}")
    assert written(policy, "\\boxed{1}") == opens + "\\boxed{1}"
    # One told not to think has thought in no words: an answer alone follows the rule.
    is_thought = "</think>" in opens
    assert follows_format(written(policy, "\\boxed{1}"), "think_then_box") == is_thought


def test_what_is_told_decides_how_long_prompts_are():
    thinking, silent = (tiny_policy("qwen3_5", thinking=told).encoder for told in (True, False))
    assert thinking.identity() != silent.identity()
    assert thinking.prompt_length(problem()) < silent.prompt_length(problem())


def test_a_template_that_does_not_ask_is_told_nothing():
    with pytest.raises(ValueError, match=r"model\.thinking=True.*model\.thinking=null"):
        tiny_policy(thinking=True)
