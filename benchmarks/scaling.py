"""What a step costs on 1 to 64 GPUs: a model, from operations, lengths and bandwidths; nothing here is timed.

Counted with the code that runs: operations (papo.models.flops on the published architectures), the deal of groups to
ranks (papo.parallel.deal). Assumed, and stated here: the lengths, the rates of a
GPU and its links, and the time of a decoding step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.measure import in_fresh_process, spread
from benchmarks.report import Row, row_of, run_alone
from benchmarks.step_model import (
    MODELS,
    NUM_PROMPTS,
    NUM_RESPONSES,
    PARAMETERS,
    ROWS_AT_ONCE,
    configuration,
    loop_steps,
    response_lengths,
)
from papo.models.flops import ScoringShape, shared_flops
from papo.parallel import deal
from papo.types import PictureLayout

GPUS = (1, 2, 4, 8, 16, 32, 64)
# Prompts of an update (conf/training/published.yaml).
MINIBATCH = 128

# No run published its lengths. Means: 300 is what EasyR1's 120 s per step at 1,800 tokens/s on each of 8 GPUs leaves for
# each of 512 x 5 responses beside its prompt of a few hundred tokens; 800 is a guess for a policy that reasons longer.
MEANS = (300, 800)
TEXT_TOKENS, IMAGE_TOKENS = (
    150,
    (256, 1280),
)  # images of 200,704 to 1,003,520 pixels, 28 x 28 a token

# H100 SXM5 data sheet: 989 TFLOP/s of dense bfloat16, 900 GB/s of NVLink in both directions; NDR InfiniBand, 400 Gbit/s
# for each GPU. Shares of these that are reached: assumptions.
FLOPS_PER_SECOND = 0.4 * 989e12
NVLINK, INFINIBAND, ETHERNET = 0.8 * 450e9, 0.8 * 50e9, 0.8 * 12.5e9  # bytes per second
GPUS_PER_MACHINE = 8
SECONDS_PER_TOKEN = 0.030  # of the hand-written loop: a guess, the same for any number of rows
# A serving engine (continuous batching): weights at 3.35 TB/s and overhead, then the keys and values of each row.
ENGINE_SECONDS, ENGINE_SECONDS_PER_ROW, ENGINE_SLOTS = 5.5e-3, 5.8e-6, 256

# Forward passes: the reference, and two views each forward, backward (twice a forward) and recomputed.
FORWARD_PASSES = 1 + 2 * (1 + 2 + 1)
# Of each parameter: float32 weight, gradient and two moments of AdamW, and the reference's float32 copy.
BYTES_PER_PARAMETER = 4 + 4 + 8 + 4
WASTE_GOALS = {8: 0.05, 64: 0.10}
WEAK_GOAL = 0.90
SEEDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The lengths of a rollout, in tokens: of prompts, and of their responses (prompt x response)."""

    prompts: np.ndarray
    responses: np.ndarray

    def part(self, of: slice) -> "Batch":
        return Batch(prompts=self.prompts[of], responses=self.responses[of])

    @property
    def group_tokens(self) -> list[int]:
        """What the collector deals by: each prompt once, and its responses."""
        total: list[int] = (self.prompts + self.responses.sum(axis=1)).tolist()
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Seconds of one step by phase, the slowest rank's, and bytes."""

    sample: float
    train: float
    gradients: float
    exchange: float
    exchange_bytes: float
    gradient_bytes: float

    @property
    def seconds(self) -> float:
        return self.sample + self.train + self.gradients + self.exchange


def drawn(mean: float, seed: int, *, num_prompts: int = NUM_PROMPTS) -> Batch:
    """Lognormal response lengths with one in a hundred at the limit, images of uniformly many tokens."""
    rng = np.random.default_rng(seed)
    responses = response_lengths(mean, (num_prompts, NUM_RESPONSES), rng)
    low, high = IMAGE_TOKENS
    return Batch(
        prompts=TEXT_TOKENS + rng.integers(low, high + 1, num_prompts),
        responses=responses,
    )


def waste(costs: Sequence[int], owners: Sequence[int], ranks: int, per_minibatch: int) -> float:
    """How much longer the busiest ranks of all minibatches work than if all worked alike."""
    busiest = sum(
        np.bincount(
            owners[start : start + per_minibatch],
            weights=costs[start : start + per_minibatch],
            minlength=ranks,
        ).max()
        for start in range(0, len(costs), per_minibatch)
    )
    return float(busiest * ranks / sum(costs) - 1)


def dealt(batch: Batch, ranks: int, *, by: str, per_minibatch: int = MINIBATCH) -> list[int]:
    """The ranks of the groups; `by` is tokens, prompts (as many each) or places (in order, undealt)."""
    costs = batch.group_tokens
    if by == "places":
        return [place % per_minibatch * ranks // per_minibatch for place in range(len(costs))]
    most = None if by == "tokens" else -(-per_minibatch // ranks)
    return deal(costs, ranks=ranks, groups_per_minibatch=per_minibatch, most_per_rank=most)


def group_flops(model: str, prompt: int, responses: Sequence[int]) -> int:
    """Operations of one forward pass of one view of one group."""
    rows = 2 * max(round((prompt - TEXT_TOKENS) ** 0.5), 1)
    columns = 2 * max(round((prompt - TEXT_TOKENS) / (rows / 2)), 1)
    shape = ScoringShape(
        prompt_lengths=(prompt,),
        response_lengths=(tuple(responses),),
        pictures=((PictureLayout(rows=rows, columns=columns, token_side=2),),),
    )
    return shared_flops(configuration(model), shape).total


def loop_seconds(rows: np.ndarray) -> float:
    """The hand-written loop: batches of rows in order, each as long as its longest response."""
    return SECONDS_PER_TOKEN * loop_steps(rows, ROWS_AT_ONCE)


def engine_seconds(rows: np.ndarray) -> float:
    """Continuous batching: a slot takes the next response as soon as its own has ended."""
    waiting, active, seconds = list(rows), [], 0.0
    while waiting or active:
        while waiting and len(active) < ENGINE_SLOTS:
            active.append(int(waiting.pop()))
        steps = max(min(active), 1)
        seconds += steps * (ENGINE_SECONDS + ENGINE_SECONDS_PER_ROW * len(active))
        active = [left - steps for left in active if left > steps]
    return seconds


def batch_flops(batch: Batch, model: str) -> list[int]:
    return [
        group_flops(model, int(prompt), responses.tolist())
        for prompt, responses in zip(batch.prompts, batch.responses, strict=True)
    ]


def step(
    batch: Batch,
    flops: Sequence[int],
    *,
    model: str,
    gpus: int,
    engine: str,
    per_minibatch: int = MINIBATCH,
) -> Step:
    """One step of the model: sampling by position, the exchange, then the updates as they are dealt by tokens.

    Args:
        batch: its lengths.
        flops: of a forward pass of each group.
        model: 3B or 7B.
        gpus: ranks.
        engine: what samples, loop or engine.
        per_minibatch: groups of an update.
    """
    count = len(batch.prompts)
    sample = engine_seconds if engine == "engine" else loop_seconds
    shares = [slice(r * count // gpus, (r + 1) * count // gpus) for r in range(gpus)]
    owners = dealt(batch, gpus, by="tokens", per_minibatch=per_minibatch)
    busiest = sum(flops) / gpus * (1 + waste(flops, owners, gpus, per_minibatch))
    num_updates = -(-count // per_minibatch)
    link = NVLINK if gpus <= GPUS_PER_MACHINE else INFINIBAND
    gradient_bytes = 0.0 if gpus == 1 else 2 * (gpus - 1) / gpus * 4 * PARAMETERS[model]
    exchanged = exchange_bytes(batch, gpus)
    return Step(
        sample=max(sample(batch.responses[share].ravel()) for share in shares),
        train=FORWARD_PASSES * busiest / FLOPS_PER_SECOND,
        gradients=num_updates * gradient_bytes / link,
        exchange=exchanged / ETHERNET,
        exchange_bytes=exchanged,
        gradient_bytes=num_updates * gradient_bytes,
    )


def exchange_bytes(batch: Batch, gpus: int) -> float:
    """What a rank receives where all tell all their responses: id, mask and log-probability, padded; and the text."""
    if gpus == 1:
        return 0.0
    rows, longest = batch.responses.size, int(batch.responses.max())
    return (gpus - 1) / gpus * (rows * longest * (8 + 1 + 4) + 4 * int(batch.responses.sum()))


def deal_rows() -> list[Row]:
    """Waste of the deal, by what passes are cut by."""
    rows = []
    for mean in MEANS:
        for ranks in (8, 64):
            for by in ("tokens", "prompts", "places"):
                wastes = []
                for seed in range(SEEDS):
                    batch = drawn(mean, seed)
                    owners = dealt(batch, ranks, by=by)
                    wastes.append(waste(batch.group_tokens, owners, ranks, MINIBATCH))
                is_bound = by == "tokens" or (by == "prompts" and ranks == 8)
                rows.append(
                    Row(
                        benchmark=f"scaling: waste of the deal by {by}",
                        case=f"{ranks} ranks, 384 x 5 responses of {mean} tokens",
                        goal=("<=", WASTE_GOALS[ranks]) if is_bound else None,
                        value=float(np.mean(wastes)),
                        low=min(wastes),
                        high=max(wastes),
                        unit="%",
                        details={"wastes": wastes},
                    )
                )
    return rows


def efficiency(model: str, mean: float, gpus: int, *, engine: str, weak: bool, seed: int) -> float:
    """Time on one GPU over time on `gpus`, of as much work (strong: divided by their number) per GPU."""
    factor = gpus if weak else 1
    batch = drawn(mean, seed, num_prompts=factor * NUM_PROMPTS)
    flops = batch_flops(batch, model)
    many = step(
        batch,
        flops,
        model=model,
        gpus=gpus,
        engine=engine,
        per_minibatch=factor * MINIBATCH,
    ).seconds
    # Of the same prompts: the mean of what each share takes alone.
    parts = [slice(r * NUM_PROMPTS, (r + 1) * NUM_PROMPTS) for r in range(factor)]
    one = float(
        np.mean(
            [
                step(batch.part(part), flops[part], model=model, gpus=1, engine=engine).seconds
                for part in parts
            ]
        )
    )
    return one / many if weak else one / (gpus * many)


def efficiency_rows(repetitions: int) -> list[Row]:
    return [
        row_of(
            spread(
                [
                    efficiency(model, mean, gpus, engine=engine, weak=weak, seed=seed)
                    for seed in range(repetitions)
                ]
            ),
            benchmark=f"scaling: {'weak' if weak else 'strong'} efficiency, a model",
            case=f"{model}, {mean} tokens, {gpus} GPUs, {engine}",
            goal=(">=", WEAK_GOAL) if weak else None,
            unit="%",
        )
        for model in MODELS
        for mean in MEANS
        for engine in ("loop", "engine")
        for weak in (True, False)
        for gpus in (8, 64)
    ]


def bytes_rows() -> list[Row]:
    rows = []
    for model in MODELS:
        for gpus in (8, 64):
            batch = drawn(300, 0)
            flops = batch_flops(batch, model)
            one = step(batch, flops, model=model, gpus=gpus, engine="loop")
            for name, value in (
                ("responses", one.exchange_bytes),
                ("gradients", one.gradient_bytes),
            ):
                rows.append(
                    Row(
                        benchmark=f"scaling: bytes of {name} per rank and step",
                        case=f"{model}, 300 tokens, {gpus} GPUs",
                        goal=None,
                        value=value / 1e9,
                        unit=" GB",
                    )
                )
        rows.append(
            Row(
                benchmark="scaling: memory per rank before activations, replicas",
                case=f"{model}, any number of GPUs",
                goal=None,
                value=BYTES_PER_PARAMETER * PARAMETERS[model] / 1e9,
                unit=" GB",
            )
        )
    return rows


def two_process_rows() -> list[Row]:
    """Counts of a real run on two processes beside the same run on one."""
    runs = in_fresh_process("benchmarks.scaling_ranks", [])
    [one], two = runs["one"], runs["two"]
    tokens = [rank["tokens"] for rank in two]
    updates = runs["updates"]
    values = {
        "tokens of the busiest / half of one process's": 2 * max(tokens) / one["tokens"],
        "tokens of both / of one process": sum(tokens) / one["tokens"],
        "passes of the busiest / of one process": max(r["passes"] for r in two) / one["passes"],
    }
    sent = {
        "MB of gradients per update, received": two[0]["all_reduce bytes"] / updates / 1e6,
        "MB of everything else per update, received": two[0]["all_gather bytes"] / updates / 1e6,
    }
    return [
        Row(
            benchmark=f"two processes: {name}",
            case="PerceptionLab, 16 prompts x 8",
            goal=None,
            value=value,
            unit="x" if name in values else " MB",
            details=dict(runs),
        )
        for name, value in {**values, **sent}.items()
    ]


def measure(repetitions: int) -> list[Row]:
    return [*deal_rows(), *efficiency_rows(repetitions), *bytes_rows(), *two_process_rows()]


def main() -> None:
    run_alone("scaling", measure, repetitions=2)


if __name__ == "__main__":
    main()
