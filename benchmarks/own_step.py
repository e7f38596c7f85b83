"""Training steps of this project, one at a time: collect, score, update, under Lightning as in train.py."""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.contest import GRID, MODEL_FOLDER, NUM_PROMPTS, NUM_RESPONSES, PROMPT_TOKENS
from benchmarks.models import build_word_tokenizer, policy_of, problems
from benchmarks.scoring import SHARED
from benchmarks.turnstile import Turnstile
from papo.masking import RandomPatchMask
from papo.objective import ClippedSurrogate, Objective, Term, ViewEntropy, ViewKL
from papo.parallel import Ranks
from papo.rollout import SharedPrefillSampler
from papo.training import Collector, PolicyModule, PromptStream, TrainingModule, TrainingSettings
from papo.types import Problem, Rewards
from papo.views import MASKED, MaskedView

VARIANTS = ("no_gradient", "gradient", "grpo")
"""PAPO with the masked view scored once per rollout, PAPO with it scored in the update, GRPO."""


class EverySecondOneIsRight:
    """A reward that costs nothing and leaves no advantage at zero."""

    def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> Rewards:
        total = torch.arange(len(texts)).remainder(2).float()
        return Rewards(total=total, correct=total > 0)


class TakeTurns(Callback):
    """Holds the trainer before each step until it is its turn."""

    def __init__(self, turnstile: Turnstile) -> None:
        self.turnstile = turnstile

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.turnstile.say(
            versions={name: version(name) for name in ("papo", "transformers", "torch")}
        )

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.turnstile.wait()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.turnstile.finish(phases=dict(module.last_step.seconds))


def build_objective(variant: str) -> Objective:
    """PAPO_G with both entropy terms, whose masked view is scored as `variant` says, or GRPO."""
    surrogate = ClippedSurrogate(
        weight=1.0,
        average="sequence",
        clip_low=0.2,
        clip_high=0.3,
        dual_clip=3.0,
        log_ratio_max=None,
    )
    terms: dict[str, Term] = {"surrogate": surrogate}
    if variant != "grpo":
        masked = {"view": MASKED, "policy": "current" if variant == "gradient" else "old"}
        entropy = {"weight": 0.03, "average": "sequence", "estimator": "sampled"}
        terms["perception_kl"] = ViewKL(
            weight=0.02, direction="raise", average="sequence", estimator="k3", **masked
        )
        terms["entropy"] = ViewEntropy(**entropy)
        terms["masked_entropy"] = ViewEntropy(**entropy, **masked)
    return Objective(terms=terms, count_epsilon=0.0)


def build_module(variant: str, response_tokens: int, folder: Path) -> TrainingModule:
    """Everything train.py would compose, with no data set and no grading behind it."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
    policy = policy_of(model, build_word_tokenizer(), scoring=SHARED)
    objective = build_objective(variant)
    settings = TrainingSettings(
        num_rollouts=10_000,  # more than anyone waits for; the parent ends the run
        prompts_per_rollout=NUM_PROMPTS,
        prompts_per_minibatch=NUM_PROMPTS,
        prompts_per_microbatch=1,
        tokens_per_microbatch=None,
        max_grad_norm=1.0,
        advantage_epsilon=1e-6,
        max_resample=0,
        keep_accuracy_above=0.01,
        keep_accuracy_below=0.99,
    )
    source = problems(policy, grid=GRID, prompt_tokens=PROMPT_TOKENS, count=4 * NUM_PROMPTS)
    collector = Collector(
        policy=policy,
        reference=None,
        views={
            MASKED: MaskedView(
                mask=RandomPatchMask(ratio=0.6, grid="patch", raw_square_pixels=14, seed=0)
            )
        },
        engine=SharedPrefillSampler(
            policy=policy,
            temperature=1.0,
            top_p=1.0,
            top_k=None,
            max_response_tokens=response_tokens,
            max_rows=NUM_PROMPTS * NUM_RESPONSES,
        ),
        reward=EverySecondOneIsRight(),
        prompts=PromptStream(source=source, seed=0),
        settings=settings,
        num_responses=NUM_RESPONSES,
        needs=objective.needs,
        seed=0,
        ranks=Ranks(),
    )
    make_optimizer = partial(torch.optim.AdamW, lr=1e-6, weight_decay=0.0)
    return TrainingModule(
        policy_module=PolicyModule(policy=policy, make_optimizer=make_optimizer),
        collector=collector,
        objective=objective,
        failure_folder=folder,
    )


def make_trainer(callbacks: list[Callback]) -> Trainer:
    """Lightning's part of a step on the CPU, and nothing beside it."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,  # a rollout each; whoever asks for steps ends it
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    parser.add_argument("--response-tokens", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    turnstile = Turnstile()
    with tempfile.TemporaryDirectory() as folder:
        module = build_module(arguments.variant, arguments.response_tokens, Path(folder))
        trainer = make_trainer([TakeTurns(turnstile)])
        trainer.fit(module)


if __name__ == "__main__":
    main()
