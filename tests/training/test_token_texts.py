"""The texts of the tokens, put together, are the response."""

import pytest
from lab_module import lab_policy

from papo.models import build_byte_tokenizer
from papo.training.token_texts import token_texts


@pytest.fixture(scope="module")
def byte_tokenizer():
    return build_byte_tokenizer("qwen2_5_vl")


@pytest.mark.parametrize("text", ["", "a", "aé€ x", "𝄞𝄞", "é", "two  spaces\n"])
def test_texts_of_bytes_join_to_the_response(byte_tokenizer, text):
    ids = byte_tokenizer(text).input_ids
    texts = token_texts(byte_tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == text


def test_a_character_of_several_tokens_belongs_to_the_last_of_them(byte_tokenizer):
    assert token_texts(byte_tokenizer, byte_tokenizer("a€b").input_ids) == ["a", "", "", "€", "b"]


def test_bytes_that_never_become_a_character_are_still_shown(byte_tokenizer):
    ids = byte_tokenizer("a€").input_ids[:-1]
    texts = token_texts(byte_tokenizer, ids)
    assert len(texts) == 3
    assert "".join(texts) == byte_tokenizer.decode(ids)


def test_spaces_between_whole_words_stay():
    tokenizer = lab_policy().encoder.tokenizer
    ids = tokenizer("<think> a = 7 , b = 4 </think>").input_ids
    texts = token_texts(tokenizer, ids)
    assert "".join(texts) == tokenizer.decode(ids) == "<think> a = 7 , b = 4 </think>"
    assert len(texts) == len(ids) == 9
