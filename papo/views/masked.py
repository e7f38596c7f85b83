"""Ways of showing a problem with part of its picture hidden, or all of it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from papo.types import AnnealedMask, ImageMask, PromptGroup, derive_seed
from papo.views.view import Item, ReadingPolicy

MASKED = "masked"
"""The view that the masking settings describe."""

_MASKED_RATIO = re.compile(r"masked_([0-9.]+)")


class MaskedView:
    """The picture through a mask: one mask for all responses to a prompt, or one for each.

    Args:
        mask: hides part of each image, or one that does so less and less over a run; its attribute `seed`, if any,
            seeds the masks.
        per: "prompt" or "response".
        hides: whether it means to change every picture; None: where its ratio, if it has one, is above 0.

    Raises:
        ValueError: another `per`.
    """

    name = MASKED

    def __init__(
        self, *, mask: ImageMask | AnnealedMask, per: str = "prompt", hides: bool | None = None
    ) -> None:
        if per not in ("prompt", "response"):
            raise ValueError(f"a view shows a picture per prompt or per response; got per={per!r}")
        self.mask = mask
        self.per = per
        # A mask that draws nothing has no seed, and one without a ratio always means to hide something.
        self.seed = int(getattr(mask, "seed", 0))
        self.hides = float(getattr(mask, "ratio", 1.0)) > 0 if hides is None else hides
        self.depends_on_progress = isinstance(mask, AnnealedMask)

    def __call__(
        self, item: Item, policy: ReadingPolicy, *, num_responses: int
    ) -> tuple[PromptGroup, ...]:
        """Returns the prompt with masked patches; nothing where the problem has no picture."""
        group = item.encoded(policy)
        if group.patches is None:
            return ()
        mask = self.mask.at(item.progress) if isinstance(self.mask, AnnealedMask) else self.mask
        if self.per == "prompt":
            return (hide(group, mask, policy, seed=item.seed),)
        return tuple(
            hide(group, mask, policy, seed=derive_seed(item.seed, index))
            for index in range(num_responses)
        )


class BlankView:
    """Every picture black: the same tokens at the same places, and nothing to see.

    Args:
        mask: blackens (papo.masking.BlankMask).
    """

    name = "blank"
    seed = 0
    hides = True

    def __init__(self, *, mask: ImageMask) -> None:
        self.mask = mask

    def __call__(
        self, item: Item, policy: ReadingPolicy, *, num_responses: int
    ) -> tuple[PromptGroup, ...]:
        """Returns the prompt with black patches; nothing where the problem has no picture."""
        if not item.problem.images:
            return ()
        return (hide(item.encoded(policy), self.mask, policy, seed=item.seed),)


class MaskBankView:
    """Part of every picture black, by a bank of seeded masks; named `masked_RATIO`.

    Mask i of a problem depends on the problem's seed, the mask's seed and ratio, and i alone, so any
    two checkpoints see the same masked pictures.

    Args:
        ratio: probability that a cell is hidden.
        num_masks: size of the bank; response j sees mask j modulo it.
        make_mask: given `ratio`, makes the mask (papo.masking.RandomPatchMask with all but the ratio).

    Raises:
        ValueError: no mask in the bank, or an impossible mask.
    """

    def __init__(
        self, *, ratio: float, num_masks: int, make_mask: Callable[..., ImageMask]
    ) -> None:
        if num_masks < 1:
            raise ValueError(f"a bank holds at least one mask; got {num_masks}. Set num_masks.")
        self.name = f"masked_{float(ratio)}"
        self.hides = ratio > 0
        self.num_masks = num_masks
        self.mask = make_mask(ratio=ratio)
        self.seed = int(getattr(self.mask, "seed", 0))

    def __call__(
        self, item: Item, policy: ReadingPolicy, *, num_responses: int
    ) -> tuple[PromptGroup, ...]:
        """Returns a prompt per mask, at most one per response; nothing without a picture."""
        if not item.problem.images:
            return ()
        group = item.encoded(policy)
        return tuple(
            hide(group, self.mask, policy, seed=mask_seed(item.seed, self.mask, index))
            for index in range(min(self.num_masks, num_responses))
        )


def hide(group: PromptGroup, mask: ImageMask, policy: ReadingPolicy, *, seed: int) -> PromptGroup:
    """Returns the prompt with the masked picture in the place of the full one."""
    generator = torch.Generator().manual_seed(seed)
    return replace(group, patches=mask(group, generator, policy.process_images))


def mask_seed(item_seed: int, mask: ImageMask, index: int) -> int:
    """The seed of mask `index` of an item's bank; depends on the mask's own seed and ratio too."""
    own_seed, ratio = int(getattr(mask, "seed", 0)), float(getattr(mask, "ratio", 1.0))
    return derive_seed(item_seed, "mask", own_seed, str(ratio), index)


def changed_fraction(group: PromptGroup, shown: Sequence[PromptGroup]) -> float | None:
    """Returns the share of a prompt's patches that a view changed, mean over the prompts it shows; 1 where it
    shows another number of them, None for a prompt without images.
    """
    if group.patches is None:
        return None
    shares = []
    for prompt in shown:
        if prompt.patches is None or prompt.patches.shape != group.patches.shape:
            shares.append(1.0)
        else:
            shares.append(float((prompt.patches != group.patches).any(dim=1).float().mean()))
    return sum(shares) / len(shares)


def masked_ratio(view: str) -> float | None:
    """The ratio of a masked view, by its name; None for any other view."""
    match = _MASKED_RATIO.fullmatch(view)
    return float(match[1]) if match else None
