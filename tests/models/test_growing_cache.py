"""The cache that grows in place holds what the one of transformers holds."""

import torch
from model_fixtures import tiny_policy
from transformers import DynamicCache

from papo.models.growing_cache import growing_cache


def both():
    config = tiny_policy().model.config.get_text_config()
    return growing_cache(config), DynamicCache(config=config)


def states(rows, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, 2, tokens, 16, generator=generator) for _ in range(2)]


@torch.no_grad()
def test_it_equals_a_cache_that_concatenates():
    growing, plain = both()
    rows = 3
    for step in range(300):  # beyond the spare room, twice
        new = states(rows, 7 if step == 0 else 1, step)
        for got, expected in zip(growing.update(*new, 0), plain.update(*new, 0), strict=True):
            assert torch.equal(got, expected)
        if step == 1:
            for cache in (growing, plain):
                cache.batch_repeat_interleave(2)
            rows = 6
        if step in (5, 200):
            kept = torch.tensor([0, 2, 3]) if rows == 6 else torch.tensor([2, 0])
            for cache in (growing, plain):
                cache.batch_select_indices(kept)
            rows = len(kept)
    assert growing.get_seq_length() == plain.get_seq_length() == 306


@torch.no_grad()
def test_a_token_is_written_in_place():
    growing, _ = both()
    growing.update(*states(3, 7, 0), 0)
    first, _ = growing.update(*states(3, 1, 1), 0)
    second, _ = growing.update(*states(3, 1, 2), 0)
    assert first.data_ptr() == second.data_ptr()


@torch.no_grad()
def test_selected_rows_of_the_first_place_are_not_mistaken_for_the_buffer():
    growing, plain = both()
    for cache in (growing, plain):
        cache.update(*states(3, 7, 0), 0)
        cache.update(*states(3, 1, 1), 0)
        cache.batch_select_indices(torch.tensor([0, 2]))
        cache.update(*states(2, 1, 2), 0)
    assert torch.equal(growing.layers[0].keys, plain.layers[0].keys)
    assert torch.equal(growing.layers[0].values, plain.layers[0].values)


def test_with_gradient_nothing_is_written_in_place():
    growing, _ = both()
    keys, values = (each.requires_grad_() for each in states(3, 7, 0))
    first, _ = growing.update(keys, values, 0)
    loss = first.exp().sum()  # backward needs what exp returned
    second, _ = growing.update(*states(3, 1, 1), 0)
    (loss + second.sum()).backward()
    assert torch.isfinite(keys.grad).all()
    assert first.data_ptr() != second.data_ptr()
