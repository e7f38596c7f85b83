"""What the policy wrote, next to what it saw: a table of responses every few rollouts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL.Image import Image

from papo.functional import kl_k3
from papo.storage.tables import append_jsonl
from papo.training.callbacks.record import finished_step
from papo.training.module import FinishedStep
from papo.training.token_texts import token_texts
from papo.types import IMAGE
from papo.views import MASKED


class RolloutTable(Callback):
    """Writes rollouts.jsonl, and the pictures of both views under rollouts/.

    The perception KL of a token (k3, nats) is that of the policy right after the update.

    Args:
        every_rollouts: after the first rollout and every n-th; 0 writes nothing.
        num_prompts: how many prompts of a rollout are shown, with all their responses.

    Raises:
        ValueError: a negative number.
    """

    def __init__(self, *, every_rollouts: int, num_prompts: int) -> None:
        for name, value in (("every_rollouts", every_rollouts), ("num_prompts", num_prompts)):
            if value < 0:
                raise ValueError(
                    f"the rollout table needs {name} >= 0; got {value}. "
                    f"Set callbacks.rollout_table.{name}."
                )
        self.every_rollouts = every_rollouts
        self.num_prompts = num_prompts

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        step = finished_step(pl_module)
        if self.every_rollouts == 0 or (
            step.rollout_step != 1 and step.rollout_step % self.every_rollouts
        ):
            return
        module: Any = pl_module
        # All ranks lend their weights, one writes.
        with module.collector.sharding.whole(module.policy_module.policy):
            if trainer.is_global_zero:
                self._write(trainer, module, step)

    def _write(self, trainer: Trainer, module: Any, step: FinishedStep) -> None:
        folder = Path(trainer.default_root_dir)
        rows = list(self._rows(folder, module, step))
        for row in rows:
            append_jsonl(folder / "rollouts.jsonl", row)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                # Here, because importing wandb takes a second that few runs need.
                from papo.training.callbacks.wandb_rollouts import wandb_rollouts

                # RecordMetrics comes after and closes the row.
                shown = wandb_rollouts(folder, rows)
                logger.experiment.log(shown, step=step.rollout_step, commit=False)

    @torch.no_grad()
    def _rows(self, folder: Path, module: Any, step: FinishedStep) -> Iterator[dict[str, Any]]:
        draft, policy = step.rollout.draft, module.policy_module.policy
        for index in range(min(self.num_prompts, len(draft.prompts))):
            shown = draft.select([index])
            reader = module.collector.reader
            group = reader.here(
                shown.prompts[0],
                step.rollout_step - 1,
                progress=(step.rollout_step - 1) / module.num_rollouts,
            ).group
            longest = max(shown.num_tokens())
            ids = shown.responses.ids[:, :longest]
            mask = shown.responses.mask[:, :longest]
            images, masked_images, token_kl = [], [], None
            if group.patches is not None:
                images = _save_pictures(
                    folder,
                    f"{step.rollout_step:06d}_{index}",
                    policy.pictures(group.patches, group.pictures),
                )
            if group.patches is not None and MASKED in group.views:
                first, *_ = group.shown_in(MASKED)
                masked_images = _save_pictures(
                    folder,
                    f"{step.rollout_step:06d}_{index}_masked",
                    policy.pictures(first.patches, first.pictures),
                )
                scores = policy.score(
                    (group,),
                    ids.to(policy.device),
                    mask.to(policy.device),
                    views=(IMAGE, MASKED),
                )
                token_kl = kl_k3(
                    scores[IMAGE].logprobs, scores[MASKED].logprobs, log_ratio_max=None
                ).cpu()
            for j in range(draft.num_responses):
                row = index * draft.num_responses + j
                token_ids = ids[j][mask[j]].tolist()
                yield {
                    "rollout_step": step.rollout_step,
                    "problem": group.problem.id,
                    "prompt": group.problem.question,
                    "answer": group.problem.answer,
                    "images": images,
                    "masked_images": masked_images,
                    "response": draft.responses.texts[row],
                    "reward": float(draft.rewards.total[row]),
                    "correct": bool(draft.rewards.correct[row]),
                    "components": {
                        name: float(values[row])
                        for name, values in draft.rewards.components.items()
                    },
                    "token_ids": token_ids,
                    "tokens": token_texts(policy.encoder.tokenizer, token_ids),
                    "perception_kl": None if token_kl is None else token_kl[j][mask[j]].tolist(),
                    **({"engine": engine} if (engine := shown.responses.engine(j)) else {}),
                }


def _save_pictures(folder: Path, name: str, pictures: Sequence[Image]) -> list[str]:
    (folder / "rollouts").mkdir(exist_ok=True)
    paths = [f"rollouts/{name}_{i}.png" for i in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(folder / path)
    return paths
