import pytest
from transformers import AutoTokenizer

from papo.lab import build_tokenizer, encode_responses, grade_response, write_tokenizer
from papo.lab.grading import write_response
from papo.lab.scene import NUMBERS, OPERATIONS, QUESTIONS, operate
from papo.lab.vocabulary import RESPONSE_WORDS, SPECIAL_TOKENS, vocabulary
from papo.types import IMAGE_MARKER


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_every_response_of_the_grammar_survives_the_round_trip(tokenizer):
    for operation in OPERATIONS:
        for a in NUMBERS:
            for b in NUMBERS:
                text = write_response(operation, a, b)
                ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
                assert tokenizer.unk_token_id not in ids
                decoded = tokenizer.decode(ids, skip_special_tokens=True)
                assert decoded == text
                truth = {
                    "operation": operation,
                    "a": a,
                    "b": b,
                    "result": operate(operation, a, b),
                }
                assert grade_response(truth, decoded).category == "correct"


def test_each_written_number_is_one_token(tokenizer):
    for number in range(100):
        assert len(tokenizer(str(number))["input_ids"]) == 1
    # 19 tokens with the end of turn, as the area and sum responses are laid out.
    assert len(tokenizer(write_response("area", 9, 9))["input_ids"]) == 18


@pytest.mark.parametrize("question", QUESTIONS.values())
def test_a_prompt_has_one_image_token_and_no_unknown_word(tokenizer, question):
    content = [{"type": "image"}, {"type": "text", "text": question.replace(IMAGE_MARKER, "")}]
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(rendered)["input_ids"])
    assert tokens[:5] == [
        "<|im_start|>",
        "user",
        "<|vision_start|>",
        "<|image_pad|>",
        "<|vision_end|>",
    ]
    assert tokens[-3:] == ["<|im_end|>", "<|im_start|>", "assistant"]
    assert tokens.count("<|image_pad|>") == 1
    assert tokenizer.unk_token not in tokens


def test_the_template_takes_plain_text_content_too(tokenizer):
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is"}, {"role": "assistant", "content": "35"}],
        tokenize=False,
    )
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(rendered)["input_ids"])
    expected = "<|im_start|> user What is <|im_end|> <|im_start|> assistant 35 <|im_end|>"
    assert tokens == expected.split()


def test_special_tokens_are_registered_and_the_grammar_is_not_special(tokenizer):
    specials = set(tokenizer.all_special_tokens)
    assert specials == set(SPECIAL_TOKENS)
    # A special <think> would vanish from decoded responses, and every grade would be a format error.
    assert not specials & set(RESPONSE_WORDS)
    for token in SPECIAL_TOKENS:
        glued = f"{token}a{token}"
        assert tokenizer.convert_ids_to_tokens(tokenizer(glued)["input_ids"]) == [token, "a", token]
    assert tokenizer.padding_side == "left"
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"


def test_words_outside_the_vocabulary_become_the_unknown_token(tokenizer):
    assert tokenizer("hypotenuse")["input_ids"] == [tokenizer.unk_token_id]


def test_the_vocabulary_lists_every_token_once():
    words = vocabulary()
    assert len(set(words)) == len(words) == len(build_tokenizer())


def test_encoded_responses_end_with_the_end_of_turn_and_pad_on_the_right():
    tokenizer = build_tokenizer()
    ids, mask = encode_responses(tokenizer, ["a b", "a = 7 ,"])
    assert mask.tolist() == [[True, True, True, False, False], [True] * 5]
    assert tokenizer.convert_ids_to_tokens(ids[0])[2:] == ["<|im_end|>"] + ["<|endoftext|>"] * 2
    assert tokenizer.convert_ids_to_tokens(ids[1]) == ["a", "=", "7", ",", "<|im_end|>"]
