"""What the warm start imitates: flawless responses, or sloppy ones that guess from the question."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from papo.lab.grading import write_response
from papo.lab.scene import draw_number, scene_numbers
from papo.types import Problem


def demonstration(
    problem: Problem, rng: np.random.Generator, *, sloppiness: float, zipf_exponent: float
) -> str:
    """Returns a response to imitate; with `sloppiness` 0 it is the right one.

    Each reading is, with probability `sloppiness`, drawn from the training prior of its
    question instead of read off the picture; operation and arithmetic stay right. Imitating such
    transcripts makes a policy that half-ignores the picture and is unsure exactly where it should
    look. Its perception errors are failures to use what the vision tower already knows.
    """
    numbers = scene_numbers(problem.truth)
    assert problem.truth is not None, "demonstrations are written for drawn scenes"
    assert numbers is not None, "demonstrations are written for drawn scenes"
    operation = problem.truth["operation"]
    readings = [
        draw_number(rng, operation, side, prior="training", zipf_exponent=zipf_exponent)
        if rng.random() < sloppiness
        else number
        for side, number in numbers.items()
    ]
    return write_response(operation, *readings)


def encode_responses(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[Int[Tensor, "rollout token"], Bool[Tensor, "rollout token"]]:
    """Returns token ids, the end of turn included, padded on the right, and their mask."""
    rows = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[i < len(row) for i in range(longest)] for row in rows])
    return ids, mask
