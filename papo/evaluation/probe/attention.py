"""How much of its attention a policy pays to the picture while it writes a response, and where.

Measured in the language model, on the row that predicts each token of the response, averaged over
heads: the share of the attention that goes to image tokens, and how evenly it is spread over them.
Attention is not an explanation: what a layer attends to need not be what decides the answer.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from papo.evaluation.response_scorer import tokenize_response
from papo.models import VisionLanguagePolicy
from papo.reporting.csv_text import csv_text
from papo.storage.files import write_atomically
from papo.types import PictureLayout, Problem, PromptGroup, ResponseRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseAttention:
    """What one response paid to its pictures; one line of attention.jsonl.

    Attributes:
        evaluation: name of the evaluation it belongs to.
        benchmark, problem_id, response_index: of the response.
        num_tokens: of the response.
        image_share: per layer, share of the attention on image tokens, mean over heads and tokens.
        image_entropy: per layer, entropy in nats of the attention over the image tokens alone, of
            the mean of heads, mean over tokens; None where a layer pays them nothing.
        grids: rows and columns of image tokens over each picture.
        heat: the attention on each of these places, pictures one after another, row by row; mean over
            layers, heads and tokens, so that it sums to the mean of `image_share`.
    """

    evaluation: str
    benchmark: str
    problem_id: str
    response_index: int
    num_tokens: int
    image_share: tuple[float, ...]
    image_entropy: tuple[float | None, ...]
    grids: tuple[tuple[int, int], ...]
    heat: tuple[float, ...]

    def to_line(self) -> str:
        """Returns it as one line of JSON, newline included."""
        return json.dumps(asdict(self), ensure_ascii=True, allow_nan=False) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerAttention:
    """One layer's attention on the image tokens.

    Attributes:
        share: of the attention, mean over heads and response tokens.
        entropy: nats, mean over the tokens that attend to the picture at all; NaN where none does.
        heat: mean over heads and response tokens; sums to `share`.
    """

    share: float
    entropy: float
    heat: Float[Tensor, " image_token"]


def layer_attention(
    weights: Float[Tensor, "head token key"], image_slots: Bool[Tensor, " key"]
) -> LayerAttention:
    """Returns what the rows of `weights`, each summing to 1, pay to the keys of the image."""
    on_image = weights.float().mean(dim=0)[:, image_slots]
    share = on_image.sum(dim=-1)
    looks = share > 0
    entropy = torch.special.entr(on_image[looks] / share[looks, None]).sum(dim=-1)
    return LayerAttention(
        share=float(share.mean()), entropy=float(entropy.mean()), heat=on_image.mean(dim=0).cpu()
    )


@torch.no_grad()
def measure_attention(
    policy: VisionLanguagePolicy, group: PromptGroup, response_ids: Int[Tensor, " token"]
) -> tuple[LayerAttention, ...]:
    """Returns every layer's attention on the picture, of the rows that predict the response.

    One pass over the whole sequence with eager attention. Only one layer's weights are kept at a
    time, heads x tokens^2 numbers: 1.8 GB in float32 for 28 heads and 4,000 tokens, and a small
    multiple of it while they are computed.

    Raises:
        ValueError: the prompt has no picture, or the response is empty.
    """
    if group.patches is None or not response_ids.numel():
        raise ValueError(
            f"attention on the picture needs a picture and a response; problem {group.problem.id!r} "
            f"has {len(group.problem.images)} pictures, its response {response_ids.numel()} tokens"
        )
    adapter, reader = policy.adapter, policy.reader
    prompt = reader.pad_prompts([group])
    features = reader.vision_features([group])
    # The last token predicts nothing of the response.
    read = response_ids[None, :-1].to(policy.device)
    positions = reader.positions_from(prompt.next_positions, read.shape[1])
    slots = torch.cat([prompt.image_slots, torch.zeros_like(read, dtype=torch.bool)], dim=1)
    embeddings = adapter.embed(torch.cat([prompt.ids, read], dim=1), slots, features)
    found = []

    def note(_module: Any, _inputs: Any, outputs: tuple[Tensor, Tensor]) -> None:
        rows = outputs[1][0, :, -response_ids.shape[0] :]
        found.append(layer_attention(rows, slots[0]))

    with _eager_attention(adapter.language_model, note):
        adapter.backbone(
            embeddings,
            torch.cat([prompt.positions, positions], dim=2),
            torch.ones_like(slots),
            image_slots=slots,
            features=features,
        )
    return tuple(found)


def response_attention(
    policy: VisionLanguagePolicy, problem: Problem, record: ResponseRecord, *, evaluation: str
) -> ResponseAttention:
    """Returns what a policy's own response paid to the pictures, numbers rounded to six digits.

    Args:
        policy: who wrote it, or whoever shall read it.
        problem: what was asked.
        record: the response, whose text is made into tokens again.
        evaluation: name to record.

    Raises:
        ValueError: no picture, no text, or one that spells an image token.
    """
    (group,) = policy.encode([problem])
    ends = record.stop_reason == "end"
    ids = torch.tensor(
        tokenize_response(policy, problem, record.response, ends=ends), dtype=torch.long
    )
    layers = measure_attention(policy, group, ids)
    heat = torch.stack([layer.heat for layer in layers]).mean(dim=0)
    parts = heat.split([picture.num_tokens for picture in group.pictures])
    maps = [heat_map(part, one) for part, one in zip(parts, group.pictures, strict=True)]
    return ResponseAttention(
        evaluation=evaluation,
        benchmark=record.benchmark,
        problem_id=record.problem_id,
        response_index=record.response_index,
        num_tokens=len(ids),
        image_share=tuple(_rounded(layer.share) for layer in layers),
        image_entropy=tuple(
            _rounded(layer.entropy) if layer.share > 0 else None for layer in layers
        ),
        grids=tuple((each.shape[0], each.shape[1]) for each in maps),
        heat=tuple(_rounded(value) for each in maps for value in each.flatten().tolist()),
    )


def heat_map(
    heat: Float[Tensor, " image_token"], picture: PictureLayout
) -> Float[Tensor, "row column"]:
    """Returns the attention on image tokens at their places over a picture; what a thumbnail has is added to the
    places that its tokens show, so that the sum stays."""
    tokens = picture.as_tokens()
    over = tokens.over_picture(heat)
    if not picture.thumbnail:
        return over
    rows, columns = over.shape
    of_thumbnail = heat[tokens.num_first :].view(1, 1, tokens.rows, tokens.columns)
    spread = interpolate(of_thumbnail, size=(rows, columns), mode="nearest")[0, 0]
    return over + spread * (tokens.rows * tokens.columns / (rows * columns))


def write_attention(found: Sequence[ResponseAttention], folder: Path) -> None:
    """Writes attention.jsonl, and attention.csv with a row per response and layer (the first is 1).

    `entropy_share` is the entropy divided by that of even attention, log of the image tokens.
    """
    head = ("evaluation", "benchmark", "problem_id", "response_index", "num_tokens")
    rows: list[tuple[Any, ...]] = [
        (*head, "num_image_tokens", "layer", "image_share", "image_entropy", "entropy_share")
    ]
    for one in found:
        even = log(len(one.heat))
        for layer, (share, entropy) in enumerate(
            zip(one.image_share, one.image_entropy, strict=True), start=1
        ):
            relative = None if entropy is None or even == 0 else _rounded(entropy / even)
            values = (len(one.heat), layer, share, entropy, relative)
            rows.append((*(getattr(one, name) for name in head), *values))
    write_atomically(folder / "attention.jsonl", "".join(one.to_line() for one in found))
    write_atomically(folder / "attention.csv", csv_text(rows))


@contextmanager
def _eager_attention(language_model: Any, note: Any) -> Iterator[None]:
    """Lets the language model compute its attention weights, which other implementations never do."""
    before = language_model.config._attn_implementation
    language_model.set_attn_implementation("eager")
    # Linear attention looks at no token, so its layers have nothing to note.
    attending = [layer.self_attn for layer in language_model.layers if hasattr(layer, "self_attn")]
    handles = [attention.register_forward_hook(note) for attention in attending]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        language_model.set_attn_implementation(before)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
