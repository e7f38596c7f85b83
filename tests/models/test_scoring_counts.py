"""What scoring costs, counted: vision passes, prompt rows, vocabulary rows, operations; bad input."""

import logging

import pytest
import torch
from model_fixtures import mixed_problems, problem, tiny_policy, with_noise_as_masked_view
from scoring_cases import all_plain_logprobs, case
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from papo.models.flops import ScoringShape, padded_flops, shared_flops
from papo.types import PictureLayout

BACKENDS = ("padded", "twopass", "split", "merged")


def record_backbone(policy):
    """The number of rows times tokens of every call of the language model."""
    calls = []
    language_model = policy.model.model.language_model
    language_model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs["inputs_embeds"].shape[:2]),
        with_kwargs=True,
    )
    return calls


@pytest.mark.parametrize("scoring", BACKENDS)
def test_each_image_passes_the_tower_once_per_view(family, scoring):
    policy = tiny_policy(family, scoring=scoring)
    groups, ids, mask = case(policy)
    rows = []
    policy.adapter.vision_tower.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(args[0].shape[0]), with_kwargs=True
    )
    policy.score(groups, ids, mask, views=("image", "masked"))
    num_patches = sum(group.patches.shape[0] for group in groups if group.patches is not None)
    assert rows == [num_patches, num_patches]


@pytest.mark.parametrize("scoring", ["split", "merged"])
def test_split_reads_every_prompt_token_and_every_response_token_once(family, scoring):
    policy = tiny_policy(family, scoring=scoring)
    groups, ids, mask = case(policy)
    calls = record_backbone(policy)
    policy.score(groups, ids, mask)
    # The last token of a response predicts nothing that is scored.
    num_tokens = sum(group.prompt_ids.shape[0] for group in groups) + int((mask.sum(1) - 1).sum())
    assert calls == [(1, num_tokens)]


def test_two_passes_read_one_row_per_prompt_first(family):
    policy = tiny_policy(family, scoring="twopass")
    groups, ids, mask = case(policy)
    calls = record_backbone(policy)
    policy.score(groups, ids, mask)
    longest = max(group.prompt_ids.shape[0] for group in groups)
    assert calls == [(len(groups), longest), (ids.shape[0], ids.shape[1] - 1)]


class LargestVocabularyTensor(TorchDispatchMode):
    """The most rows that any tensor over the vocabulary had."""

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor) and self.vocabulary in value.shape:
                width = value.numel() // self.vocabulary
                # The head's weight and its gradient are (vocab, hidden), whatever is scored.
                if width != 64:
                    self.rows = max(self.rows, width)
        return result


@pytest.mark.parametrize("scoring", BACKENDS)
def test_no_tensor_of_all_tokens_by_the_vocabulary_ever_lives(family, scoring):
    policy = tiny_policy(family, scoring=scoring, head_chunk_size=7)
    groups, ids, mask = case(policy)
    watch = LargestVocabularyTensor(policy.model.config.get_text_config().vocab_size)
    with watch:
        scores = policy.score(groups, ids, mask, views=("image", "masked"), full_vocabulary=True)
        (scores["image"].logprobs.sum() + scores["masked"].kl_from_image.sum()).backward()
    assert watch.rows == 7


@pytest.mark.parametrize("scoring", BACKENDS)
def test_a_response_of_length_zero_adds_nothing_and_changes_nothing(family, scoring):
    policy = tiny_policy(family, scoring=scoring)
    groups, ids, mask = case(policy)
    emptied = mask.clone()
    emptied[1] = emptied[3] = False
    with torch.no_grad():
        full = policy.score(groups, ids, mask)["image"].logprobs
        scores = policy.score(groups, ids, emptied)["image"].logprobs
        nothing = policy.score(groups, ids, torch.zeros_like(mask))["image"].logprobs
    expected = torch.where(emptied, full, 0.0)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    assert (nothing == 0).all()


@pytest.mark.parametrize("scoring", [*BACKENDS, "auto"])
@pytest.mark.parametrize("num_tokens", [1, 4])
def test_groups_of_one_are_scored_correctly(family, scoring, num_tokens):
    policy = tiny_policy(family, scoring=scoring)
    groups = policy.encode(mixed_problems())
    ids = torch.randint(0, 256, (3, num_tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        scores = policy.score(groups, ids, mask)["image"].logprobs
        expected = all_plain_logprobs(policy, groups, ids, mask)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)


def test_a_gap_in_a_response_is_an_error():
    policy = tiny_policy()
    groups = policy.encode([problem()])
    ids, mask = torch.zeros(1, 3, dtype=torch.long), torch.tensor([[True, False, True]])
    with pytest.raises(ValueError, match="response_mask with a gap"):
        policy.score(groups, ids, mask)


@pytest.mark.parametrize("num_rows", [0, 5])
def test_rows_that_are_not_whole_groups_are_an_error(num_rows):
    policy = tiny_policy()
    ids = torch.zeros(num_rows, 3, dtype=torch.long)
    groups = policy.encode(mixed_problems()) if num_rows else ()
    with pytest.raises(ValueError, match="whole groups"):
        policy.score(groups, ids, torch.ones_like(ids, dtype=torch.bool))


def test_two_passes_with_gradient_checkpointing_are_refused_with_the_keys():
    with pytest.raises(ValueError, match=r"model\.scoring=split.*model\.gradient_checkpointing"):
        tiny_policy(scoring="twopass", gradient_checkpointing=True)


@pytest.mark.parametrize("scoring", ["padded", "split"])
def test_the_counted_operations_are_those_of_the_linear_layers(family, scoring):
    # torch counts products with weights exactly. Attention is counted by pairs here; what torch counts of it
    # on a CPU depends on its version: nothing, products of batches, or all pairs, those a mask hides included.
    policy = tiny_policy(family, scoring=scoring, head_chunk_size=10_000)
    groups, ids, mask = case(policy)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        policy.score(groups, ids, mask)
    config, shape = policy.model.config, ScoringShape.of(groups, mask)
    count = {
        "split": shared_flops,
        "padded": lambda *args: padded_flops(*args, images_per_response=False),
    }[scoring]
    text, vision = config.get_text_config(), config.vision_config
    lengths = mask.sum(1).tolist()
    prompts = [g.prompt_ids.shape[0] for g in groups]
    if scoring == "split":
        read = [(prompts[row // 3], max(n - 1, 0)) for row, n in enumerate(lengths)]
        pairs = sum(p * (p + 1) // 2 for p in prompts)
        pairs += sum(p * n + n * (n + 1) // 2 for p, n in read)
    else:
        row = max(prompts) + max(lengths)
        pairs = len(lengths) * row * (row + 1) // 2
    image_pairs = sum(picture.num_patches**2 for g in groups for picture in g.pictures)
    num_recurrent = list(getattr(text, "layer_types", ())).count("linear_attention")
    attention = 4 * text.hidden_size * (text.num_hidden_layers - num_recurrent) * pairs
    attention += 4 * vision.hidden_size * vision.depth * image_pairs
    num_patches = sum(picture.num_patches for g in groups for picture in g.pictures)
    convolved = 2 * num_patches * vision.hidden_size * policy.adapter.patch_channels(config)
    if num_recurrent:
        if scoring == "padded":
            num_tokens = len(lengths) * row
        else:  # groups 0 and 3 have prompts of one length; responses are padded
            num_read = [n for _, n in read]
            padded = 6 * max(num_read[:3] + num_read[9:])
            padded += 3 * max(num_read[3:6]) + 3 * max(num_read[6:9])
            num_tokens = sum(prompts) + padded
        values = text.linear_num_value_heads * text.linear_value_head_dim
        channels = 2 * text.linear_num_key_heads * text.linear_key_head_dim + values
        per_token = 2 * channels * text.linear_conv_kernel_dim + 7 * values * 16
        convolved += num_recurrent * num_tokens * per_token
    counted = count(config, shape).total - attention - convolved
    with_weights = {torch.ops.aten.mm, torch.ops.aten.addmm}
    by_operation = counter.get_flop_counts()["Global"]
    assert counted == sum(by_operation.get(operation, 0) for operation in with_weights)


def test_sharing_saves_what_the_measurements_of_this_shape_say():
    # (P, T, G) = (1024, 512, 8) with 768 image tokens and the sizes of Qwen2.5-VL-3B:
    # 106.8 Tflop plain, 36.8 Tflop shared, 4.16 of them vision and 2.55 the head.
    from transformers import Qwen2_5_VLConfig

    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
        },
        vision_config={"out_hidden_size": 2048, "hidden_size": 1280, "intermediate_size": 3420},
    )
    shape = ScoringShape(
        prompt_lengths=(1024,),
        response_lengths=((512,) * 8,),
        pictures=((PictureLayout(rows=48, columns=64, token_side=2),),),
    )
    shared = shared_flops(config, shape)
    plain = padded_flops(config, shape, images_per_response=True)
    assert shared.head / 1e12 == pytest.approx(2.55, rel=0.01)
    assert shared.vision / 1e12 == pytest.approx(4.16, rel=0.02)
    assert shared.prompts / 1e12 == pytest.approx(5.84, rel=0.02)
    assert shared.responses / 1e12 == pytest.approx(24.28, rel=0.02)
    assert plain.total / 1e12 == pytest.approx(106.8, rel=0.02)


def test_the_cheaper_backend_is_chosen_and_named_when_it_changes(caplog):
    policy = tiny_policy(scoring="auto")
    many, ids, mask = case(policy)
    one = policy.encode([problem()])
    with caplog.at_level(logging.INFO, logger="papo.models.scoring.choice"), torch.no_grad():
        policy.score(many, ids, mask)
        policy.score(many, ids, mask)
        policy.score(one, ids[2:3], mask[2:3])
    names = [record.getMessage().split()[1] for record in caplog.records]
    assert names == ["split", "padded"]


def test_sliding_windows_are_scored_padded_never_split():
    from papo.models.scoring import BackendChoice

    policy = tiny_policy()
    config = policy.model.config
    config.get_text_config().layer_types = ["full_attention", "sliding_attention"]
    groups, _, mask = case(policy)
    assert BackendChoice(scoring="auto", config=config)(groups, mask, policy.reader) == "padded"
    for scoring in ("split", "flex"):
        with pytest.raises(ValueError, match=r"sliding windows.*model\.scoring=auto"):
            BackendChoice(scoring=scoring, config=config)


def test_the_masked_view_alone_costs_one_pass(family):
    policy = tiny_policy(family)
    groups = with_noise_as_masked_view(policy.encode([problem()]))
    calls = record_backbone(policy)
    ids = torch.zeros(4, 5, dtype=torch.long)
    policy.score(groups, ids, torch.ones_like(ids, dtype=torch.bool), views=("masked",))
    assert len(calls) == 1
