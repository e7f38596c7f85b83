"""Log-probabilities and exact entropies from hidden states: in chunks against all logits at once.

2,048 tokens, the vocabulary of Qwen2.5-VL (151,936), hidden size 256, float32, forward and backward;
with entropy, the entropy is part of the loss. The naive way is log_softmax over all logits. With `--way` this is the fresh process that measures one peak.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.measure import (
    PeakMemory,
    cpu_seconds,
    in_fresh_process,
    ratios,
    spread,
    take_turns,
)
from benchmarks.report import Row, row_of, run_alone
from papo.functional import token_statistics

NUM_TOKENS, VOCABULARY, HIDDEN = 2048, 151_936, 256
CHUNK = 128
WAYS = ("naive", "chunked", "naive_entropy", "chunked_entropy", "chunked_entropy_256")
COMPARED = {
    "chunked": ("log-probs", "naive"),
    "chunked_entropy": ("log-probs + entropy", "naive_entropy"),
    "chunked_entropy_256": ("log-probs + entropy", "naive_entropy"),
}
ENTROPY_WEIGHT = 0.03


class Head:
    """Hidden states, an output embedding and targets."""

    def __init__(self, num_tokens: int, vocabulary: int, hidden: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.hidden = torch.randn(num_tokens, hidden, generator=generator, requires_grad=True)
        weight = torch.randn(vocabulary, hidden, generator=generator) / hidden**0.5
        self.weight = weight.requires_grad_()
        self.targets = torch.randint(vocabulary, (num_tokens,), generator=generator)

    def naive(self, with_entropy: bool) -> torch.Tensor:
        log_p = (self.hidden @ self.weight.T).log_softmax(dim=1)
        loss = log_p.gather(1, self.targets[:, None]).mean()
        if with_entropy:
            loss = loss - ENTROPY_WEIGHT * (log_p.exp() * log_p).sum(dim=1).mean()
        return loss

    def chunked(self, with_entropy: bool, chunk_size: int) -> torch.Tensor:
        statistics = token_statistics(
            self.hidden,
            self.weight,
            self.targets,
            temperature=1.0,
            banned_ids=None,
            full_vocabulary=with_entropy,
            chunk_size=chunk_size,
        )
        loss = statistics.logprobs.mean()
        if statistics.entropy is not None:
            loss = loss + ENTROPY_WEIGHT * statistics.entropy.mean()
        return loss

    def loss(self, way: str) -> torch.Tensor:
        """Mean log-prob, plus the weighted mean entropy where the name says so."""
        with_entropy = "entropy" in way
        if way.startswith("naive"):
            return self.naive(with_entropy)
        return self.chunked(with_entropy, chunk_of(way))

    def step(self, way: str) -> None:
        """Forward and backward; gradients stay allocated."""
        self.loss(way).backward()


def chunk_of(way: str) -> int:
    return 256 if way.endswith("256") else CHUNK


def measure(repetitions: int) -> list[Row]:
    head = Head(NUM_TOKENS, VOCABULARY, HIDDEN)
    timed: dict[str, Callable[[], float]] = {
        way: partial(cpu_seconds, partial(head.step, way)) for way in WAYS
    }
    seconds = take_turns(timed, repetitions=repetitions, warm_ups=0)
    del head, timed
    peaks = {way: in_fresh_process("benchmarks.head", ["--way", way])["bytes"] for way in WAYS}
    details = {"seconds": seconds, "bytes": peaks}
    rows = []
    for way, (label, naive) in COMPARED.items():
        case = f"N={NUM_TOKENS} V={VOCABULARY} D={HIDDEN} chunk={chunk_of(way)}"
        # The goals are those of the whole head; log-probs alone need less, naive or not.
        has_goal = "entropy" in way
        rows += [
            row_of(
                ratios(seconds[way], seconds[naive]),
                benchmark=f"head time, {label}: chunked / naive",
                case=case,
                goal=("<=", 1.3) if has_goal else None,
                details=details,
            ),
            row_of(
                spread([peaks[naive] / peaks[way]]),
                benchmark=f"head peak memory, {label}: naive / chunked",
                case=case,
                goal=(">=", 8.0) if has_goal else None,
                details=details,
            ),
        ]
    return rows


def peak_bytes(way: str) -> int:
    head = Head(NUM_TOKENS, VOCABULARY, HIDDEN)
    for leaf in (head.hidden, head.weight):
        leaf.grad = torch.ones_like(leaf)
    with PeakMemory() as peak:
        head.step(way)
    return peak.bytes


def main() -> None:
    if "--way" not in sys.argv:
        run_alone("head", measure, repetitions=1)
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--way", choices=WAYS, required=True)
    print(json.dumps({"bytes": peak_bytes(parser.parse_args().way)}))


if __name__ == "__main__":
    main()
