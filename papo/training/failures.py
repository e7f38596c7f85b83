"""How a run ends early: each failure says what was lost, what was kept and how to go on."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from papo.types import PromptGroup, RolloutBatch, TokenScores, ViewScores


class NonFiniteLoss(ArithmeticError):
    """A term of the objective or a gradient became infinite or not a number.

    Args:
        quantity: which one.
        rollout_step: rollouts finished before.
        batch_file: where the batch was written.
    """

    def __init__(self, *, quantity: str, rollout_step: int, batch_file: Path) -> None:
        self.quantity = quantity
        self.batch_file = batch_file
        super().__init__(
            f"{quantity} is not finite in rollout {rollout_step + 1}; training stopped before that "
            f"update. The batch is in {batch_file} (torch.load(..., weights_only=True)); the last "
            "checkpoint is intact. Usual causes: too large a learning rate (optimizer.lr) or perception "
            "weight (objective.gamma)."
        )


class GroupDoesNotFit(MemoryError):
    """One prompt and its responses are more than memory holds; a pass cannot be smaller.

    Args:
        num_tokens: of the group.
        reason: what the allocator said.
    """

    def __init__(self, *, num_tokens: int, reason: BaseException) -> None:
        super().__init__(
            f"out of memory in a pass over one prompt and its responses ({num_tokens} tokens), and "
            "training.prompts_per_microbatch or training.tokens_per_microbatch cannot cut it further: "
            f"{str(reason).splitlines()[0]} Set model.gradient_checkpointing=true, or lower "
            "rollout.max_response_tokens, rollout.num_responses, model.max_pixels or "
            "model.head_chunk_size. The last checkpoint is intact."
        )


class PassDoesNotFit(MemoryError):
    """Memory ran out in a pass that other ranks take part in; the run goes on with smaller ones.

    Args:
        num_prompts: of the pass.
        passes: what a resumed run makes of them.
        reason: what the allocator said.
    """

    def __init__(self, *, num_prompts: int, passes: str, reason: str) -> None:
        super().__init__(
            f"out of memory in a pass over {num_prompts} prompts, which the ranks of trainer.strategy=shards "
            f"cannot do again on their own ({reason}). The same command with run_dir=<this run's folder> "
            f"resume=true goes on from the last checkpoint with {passes}; or set "
            "training.prompts_per_microbatch or training.tokens_per_microbatch lower from the beginning."
        )


class CheckpointNotWritten(OSError):
    """A checkpoint could not be written; the ones before it are untouched.

    Args:
        path: the checkpoint.
        reason: what the system said.
    """

    def __init__(self, *, path: Path, reason: BaseException) -> None:
        super().__init__(
            f"could not write the checkpoint {path}: {reason}. Earlier checkpoints are intact. Free some "
            "space, then run the same command with run_dir=<this run's folder> resume=true."
        )


def write_batch(
    file: Path, broken: Mapping[str, float], part: RolloutBatch, scores: TokenScores | None
) -> None:
    """Writes what a non-finite loss was computed from: tensors and plain values only."""

    def tensors(owner: object, names: tuple[str, ...]) -> dict[str, Tensor]:
        found = {name: getattr(owner, name) for name in names}
        return {name: value.detach().cpu() for name, value in found.items() if value is not None}

    def of_view(seen: ViewScores) -> dict[str, Tensor]:
        return tensors(seen, tuple(field.name for field in fields(seen)))

    def of_prompt(group: PromptGroup) -> dict[str, Any]:
        pictures = [asdict(picture) for picture in group.pictures]
        return {**tensors(group, ("prompt_ids", "patches")), "pictures": pictures}

    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "broken": dict(broken),
            "batch": tensors(
                part,
                (
                    "response_ids",
                    "response_mask",
                    "old_logprobs",
                    "ref_logprobs",
                    "behaviour_logprobs",
                    "advantages",
                    "correct",
                    "rewards",
                ),
            ),
            "term_weights": {name: each.cpu() for name, each in part.term_weights.items()},
            "old_views": {view: of_view(seen) for view, seen in part.old_views.items()},
            "scores": {view: of_view(seen) for view, seen in (scores or {}).items()},
            "prompts": [
                {
                    "id": group.problem.id,
                    "question": group.problem.question,
                    **of_prompt(group),
                    "views": {
                        view: [of_prompt(one) for one in shown]
                        for view, shown in group.views.items()
                    },
                }
                for group in part.groups
            ],
        },
        file,
    )
