"""Hiding what the question is about, and as a control as much of the picture elsewhere.

Both need to know where it is: `truth["boxes"]` of a problem, name -> (left, top, right, bottom) in
pixels of its one picture, right and bottom exclusive, as PerceptionLab's problems have it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from papo.masking.black import image_patches, like_patches
from papo.types import Problem, ProcessImages, PromptGroup, shown

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom exclusive."""


class NoRoom(ValueError):
    """A picture has no place for a control as large as its evidence."""


class _BoxMask(ABC):
    """Blackens boxes of a picture of which it is known where its evidence is."""

    @abstractmethod
    def boxes(
        self, problem: Problem, evidence: tuple[Box, ...], generator: torch.Generator
    ) -> Sequence[Box]:
        """Returns what becomes black."""

    def check_problem(self, problem: Problem) -> None:
        """Returns when it is known where the evidence of a problem is, as `check_mask` asks.

        Raises:
            ValueError: as `evidence_boxes`.
        """
        evidence_boxes(problem)

    def __call__(
        self, group: PromptGroup, generator: torch.Generator, process_images: ProcessImages
    ) -> Float[Tensor, "patch pixel"]:
        """Returns the patches of the masked image, shaped like `group.patches`.

        Raises:
            ValueError: the prompt has no image, its truth names no boxes, or there is no room for a control.
        """
        image_patches(group)
        problem = group.problem
        boxes = self.boxes(problem, evidence_boxes(problem), generator)
        return like_patches(group, process_images([_blacken(problem.images[0], boxes)]))


class EvidenceMask(_BoxMask):
    """Blackens the boxes of the truth and nothing else; what remains says nothing of the answer.

    Where the boxes were, and how large, stays visible: black on the board.
    """

    def boxes(
        self, problem: Problem, evidence: tuple[Box, ...], generator: torch.Generator
    ) -> Sequence[Box]:
        return evidence


class EvidenceControlMask(_BoxMask):
    """Blackens boxes of the same sizes that touch no box of the truth, nor one another.

    Boxes of the truth that overlap are cut first, so that no pixel counts twice. Each goes to one of its free places, all equally likely. What it costs beyond nothing is the
    cost of hiding so many pixels; the rest of what `EvidenceMask` costs is the evidence.

    Args:
        seed: of the masks alone; the caller mixes it into the generator it hands over.
    """

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def boxes(
        self, problem: Problem, evidence: tuple[Box, ...], generator: torch.Generator
    ) -> Sequence[Box]:
        image = problem.images[0]
        taken = torch.zeros(image.height, image.width, dtype=torch.bool)
        for box in evidence:
            _fill(taken, box)
        controls = []
        for left, top, right, bottom in _disjoint(evidence):
            place = _free_place(taken, right - left, bottom - top, generator)
            if place is None:
                raise NoRoom(
                    f"problem {shown(problem.id)!r} has no room for a control as large as its evidence; "
                    "choose masking=evidence or masking=random"
                )
            _fill(taken, place)
            controls.append(place)
        return controls


def evidence_boxes(problem: Problem) -> tuple[Box, ...]:
    """Returns the boxes of a problem's truth, cut off at the edges of its picture.

    A box without a pixel of the picture, and one that is None, is left out.

    Raises:
        ValueError: no boxes are known, one is not four whole numbers, or the problem has several
            pictures.
    """
    known = _named_boxes(problem)
    for box in known:
        if not (isinstance(box, Sequence) and len(box) == 4 and all(type(e) is int for e in box)):
            raise ValueError(
                "a box is (left, top, right, bottom) in whole pixels; problem "
                f"{shown(problem.id)!r} of {problem.source!r} has {shown(box)}. Choose masking=random."
            )
    width, height = problem.images[0].size if len(problem.images) == 1 else (0, 0)
    boxes = tuple(
        (max(0, left), max(0, top), min(width, right), min(height, bottom))
        for left, top, right, bottom in known
        if max(0, left) < min(width, right) and max(0, top) < min(height, bottom)
    )
    if not boxes:
        raise ValueError(
            "masking=evidence and masking=control need problems with one picture whose truth names "
            f"boxes in it, as PerceptionLab's do; problem {shown(problem.id)!r} of {problem.source!r} has "
            f"{len(problem.images)} pictures and {len(known)} boxes, {len(boxes)} of them in a single "
            "picture. Choose masking=random."
        )
    return boxes


def has_evidence(problem: Problem) -> bool:
    """Whether it is said where the evidence of a problem is: boxes of its one picture."""
    return len(problem.images) == 1 and bool(_named_boxes(problem))


def _named_boxes(problem: Problem) -> list[Any]:
    named = (problem.truth or {}).get("boxes")
    # Rows of one Parquet table have the same names; a name that a row lacks is None there.
    return [box for box in named.values() if box is not None] if isinstance(named, Mapping) else []


def _blacken(image: Image.Image, boxes: Iterable[Box]) -> Image.Image:
    masked = image.convert("RGB")
    for box in boxes:
        masked.paste((0, 0, 0), box)
    return masked


def _disjoint(boxes: Iterable[Box]) -> list[Box]:
    """The same pixels in boxes of which none overlap; those that do not are as they were."""
    found: list[Box] = []
    for box in boxes:
        pieces = [box]
        for other in found:
            pieces = [rest for piece in pieces for rest in _without(piece, other)]
        found += pieces
    return found


def _without(box: Box, other: Box) -> list[Box]:
    """What is left of a box where another covers part of it: above, below, left and right of that part."""
    left, top, right, bottom = box
    common = (
        *(max(left, other[0]), max(top, other[1])),
        *(min(right, other[2]), min(bottom, other[3])),
    )
    if common[0] >= common[2] or common[1] >= common[3]:
        return [box]
    rests = [
        (left, top, right, common[1]),
        (left, common[3], right, bottom),
        (left, common[1], common[0], common[3]),
        (common[2], common[1], right, common[3]),
    ]
    return [rest for rest in rests if rest[0] < rest[2] and rest[1] < rest[3]]


def _fill(taken: Bool[Tensor, "row column"], box: Box) -> None:
    left, top, right, bottom = box
    taken[top:bottom, left:right] = True


def _free_place(
    taken: Bool[Tensor, "row column"], width: int, height: int, generator: torch.Generator
) -> Box | None:
    """Draws one of the places where a box of this size covers nothing taken."""
    # Sums over every window of the size, from sums over all rectangles that begin at the corner.
    corner = np.pad(taken.numpy().cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = (
        corner[height:, width:]
        - corner[:-height, width:]
        - corner[height:, :-width]
        + corner[:-height, :-width]
    )
    places = np.argwhere(inside == 0)
    if len(places) == 0:
        return None
    chosen = int(torch.randint(len(places), (1,), generator=generator, device=generator.device))
    top, left = (int(coordinate) for coordinate in places[chosen])
    return left, top, left + width, top + height
