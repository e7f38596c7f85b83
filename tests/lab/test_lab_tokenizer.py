from itertools import product

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from papo.lab import build_tokenizer, encode_responses, grade_response, write_tokenizer
from papo.lab.grading import write_response
from papo.lab.shapes import NUMBERS, QUADRILATERAL, RECTANGLE, SHAPES, operate
from papo.lab.vocabulary import (
    SHIPPED,
    UNKNOWN,
    check_model_speaks,
    response_words,
    shortest_response,
    vocabulary,
)
from papo.models.families import FAMILIES
from papo.types import IMAGE_MARKER

SPECIAL_TOKENS = (*SHIPPED.special_tokens, UNKNOWN)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    found = {}
    for name, shape in SHAPES.items():
        folder = tmp_path_factory.mktemp(name)
        write_tokenizer(folder, shape)
        found[name] = AutoTokenizer.from_pretrained(folder)
    return found


@pytest.fixture(scope="module")
def tokenizer(tokenizers):
    return tokenizers["rectangle"]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_every_response_of_the_grammar_survives_the_round_trip(tokenizers, shape):
    tokenizer = tokenizers[shape.name]
    # Every number at every side; of four sides not every combination.
    few = NUMBERS if len(shape.sides) == 2 else NUMBERS[:: len(NUMBERS) - 1]
    combinations = [
        *product(few, repeat=len(shape.sides)),
        *([n] * len(shape.sides) for n in NUMBERS),
    ]
    for operation in shape.operations:
        for numbers in combinations:
            text = write_response(operation, *numbers)
            ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
            assert tokenizer.unk_token_id not in ids
            assert len(ids) >= shortest_response(shape)
            decoded = tokenizer.decode(ids, skip_special_tokens=True)
            assert decoded == text
            truth = {
                "operation": operation,
                **dict(zip(shape.sides, numbers, strict=True)),
                "result": operate(operation, *numbers),
            }
            assert grade_response(truth, decoded).category == "correct"


def test_responses_have_the_length_that_the_configurations_make_room_for():
    assert shortest_response(RECTANGLE) == 19
    assert shortest_response(QUADRILATERAL) == 39
    assert len(write_response("horizontal", 9, 9, 9, 9).split()) + 1 == 39


def test_a_model_of_another_world_is_refused_and_of_word_pieces_is_not(tmp_path):
    for name, shape in SHAPES.items():
        write_tokenizer(tmp_path / name, shape)
        check_model_speaks(tmp_path / name, shape)
    with pytest.raises(
        ValueError, match=r"data\.shape=quadrilateral: it does not know c, d, perim"
    ):
        check_model_speaks(tmp_path / "rectangle", QUADRILATERAL)
    with pytest.raises(ValueError, match=r"data\.shape=rectangle: it does not know .*area"):
        check_model_speaks(tmp_path / "quadrilateral", RECTANGLE)
    with pytest.raises(ValueError, match=r"than benchmark\.shape=.* or choose benchmark=lab or"):
        check_model_speaks(tmp_path / "quadrilateral", RECTANGLE, key="benchmark.shape")
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}}}')
    check_model_speaks(tmp_path, RECTANGLE)
    check_model_speaks(tmp_path / "nothing", RECTANGLE)


def test_each_written_number_is_one_token(tokenizer):
    for number in range(100):
        assert len(tokenizer(str(number))["input_ids"]) == 1
    # 19 tokens with the end of turn, as the area and sum responses are laid out.
    assert len(tokenizer(write_response("area", 9, 9))["input_ids"]) == 18


@pytest.mark.parametrize(
    ("shape", "question"),
    [(name, asked.question) for name, s in SHAPES.items() for asked in s.operations.values()],
)
def test_a_prompt_has_one_image_token_and_no_unknown_word(tokenizers, shape, question):
    tokenizer = tokenizers[shape]
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
    assert not specials & set(response_words(RECTANGLE))
    for token in SPECIAL_TOKENS:
        glued = f"{token}a{token}"
        assert tokenizer.convert_ids_to_tokens(tokenizer(glued)["input_ids"]) == [token, "a", token]
    assert tokenizer.padding_side == "left"
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"


def test_words_outside_the_vocabulary_become_the_unknown_token(tokenizer):
    assert tokenizer("hypotenuse")["input_ids"] == [tokenizer.unk_token_id]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_the_vocabulary_lists_every_token_once(shape):
    words = vocabulary(shape)
    assert len(set(words)) == len(words) == len(build_tokenizer(shape))


def test_encoded_responses_end_with_the_end_of_turn_and_pad_on_the_right():
    tokenizer = build_tokenizer()
    ids, mask = encode_responses(tokenizer, ["a b", "a = 7 ,"])
    assert mask.tolist() == [[True, True, True, False, False], [True] * 5]
    assert tokenizer.convert_ids_to_tokens(ids[0])[2:] == ["<|im_end|>"] + ["<|endoftext|>"] * 2
    assert tokenizer.convert_ids_to_tokens(ids[1]) == ["a", "=", "7", ",", "<|im_end|>"]


def test_the_shipped_dialect_is_that_of_its_family():
    family = FAMILIES["qwen2_5_vl"]
    assert SHIPPED.special_tokens == family.special_tokens
    assert (SHIPPED.end_token, SHIPPED.pad_token) == (family.end_token, family.pad_token)
    assert vocabulary(RECTANGLE, SHIPPED) == vocabulary(RECTANGLE, family)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_its_own_special_tokens_and_a_word_for_all_of_a_prompt(
    tmp_path, family, shape
):
    dialect = FAMILIES[family]
    write_tokenizer(tmp_path, shape, dialect)
    check_model_speaks(tmp_path, shape)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert set(tokenizer.all_special_tokens) == {*dialect.special_tokens, UNKNOWN}
    assert tokenizer.eos_token == dialect.end_token
    assert tokenizer.pad_token == dialect.pad_token
    assert all(getattr(tokenizer, name) == token for name, token in dialect.named_tokens.items())
    for asked in shape.operations.values():
        text = {"type": "text", "text": asked.question.replace(IMAGE_MARKER, "")}
        for content in ([{"type": "image"}, text], [text]):
            turns = [{"role": "user", "content": content}]
            rendered = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True
            )
            assert "<think>" not in rendered  # the response writes it
            assert tokenizer.unk_token_id not in tokenizer(rendered)["input_ids"]
