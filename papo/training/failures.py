"""How a run ends early: each failure says what was lost, what was kept and how to go on."""

from pathlib import Path


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
