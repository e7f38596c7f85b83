"""Which words depend on the picture: the perception KL of every token of given responses.

For every token o_t of a response, KL(pi(. | q, I, o_<t) || pi(. | q, I_mask, o_<t)) over the whole
vocabulary, and the k3 estimate that training uses, k3 = r - 1 - log r with r = q(o_t) / p(o_t)
(arXiv:2507.06448v5, section 3), each the mean over a bank of seeded masks. k3 estimates the KL for
tokens that the policy drew itself; on fixed references it only says what training would see.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from torch import Tensor

from papo.data import ProblemError
from papo.evaluation.benchmark import Benchmark
from papo.evaluation.probe.references import Reference
from papo.evaluation.probe.token_divergence import TokenDivergence
from papo.functional import kl_k3
from papo.parallel import Ranks
from papo.types import (
    IMAGE,
    ImageMask,
    Problem,
    ProblemSource,
    PromptGroup,
    ResponseRecord,
    TokenScores,
    derive_seed,
    shown,
)
from papo.views import MASKED, hide, mask_seed

_log = logging.getLogger(__name__)


@runtime_checkable
class ScoringPolicy(Protocol):
    """What the probe needs of a policy."""

    encoder: Any

    @property
    def banned_token_ids(self) -> tuple[int, ...]: ...

    def encode(self, problems: Sequence[Problem]) -> tuple[PromptGroup, ...]: ...

    def process_images(self, images: Sequence[Image]) -> Float[Tensor, "patch pixel"]: ...

    def score(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        *,
        views: Sequence[str] = ...,
        full_vocabulary: bool = ...,
    ) -> TokenScores: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Response:
    """One response to score, and where it comes from."""

    kind: str
    index: int
    ids: list[int]
    num_sampled: int | None


@dataclass(slots=True, kw_only=True, eq=False)
class _Job:
    """One problem: its responses, and the sums over the masks scored so far."""

    number: int
    benchmark: str
    problem_id: str
    responses: list[_Response]
    k3: Tensor
    exact: Tensor
    num_scored: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Unit:
    """One mask of one problem: what a single group of a scoring pass is made of."""

    job: _Job
    group: PromptGroup

    @property
    def num_rows(self) -> int:
        return len(self.job.responses)

    @property
    def length(self) -> int:
        return self.group.prompt_ids.shape[0] + self.job.exact.shape[1]


@dataclass(slots=True, kw_only=True, eq=False)
class _Pass:
    """What is scored together, and how many problems without anything to score came before it."""

    units: list[_Unit]
    num_empty: int


class PerceptionProbe:
    """Scores responses against the picture and against a bank of masked pictures.

    Args:
        mask: hides part of the picture; a mask of ratio R uses the masks of the view masked_R.
        num_masks: size of the bank.
        num_problems: the first so many of every benchmark; None for all.
        num_responses: score the first so many of the policy's own responses to each problem.
        references: gives the fixed response to a problem; None scores own responses alone.
        tokens_per_pass: rows times (prompt + longest response) of one pass; bounds memory. One mask of
            one problem is never cut.
        seed: of the evaluation.

    Raises:
        ValueError: an impossible setting.
    """

    def __init__(
        self,
        *,
        mask: ImageMask,
        num_masks: int,
        num_problems: int | None,
        num_responses: int,
        references: Reference | None,
        tokens_per_pass: int,
        seed: int,
    ) -> None:
        if isinstance(mask, partial):
            raise ValueError(
                "the probe needs a mask that is complete by itself; got one that wants the policy. Set "
                "masking=random or masking=blank."
            )
        if num_masks < 1:
            raise ValueError(f"the probe needs at least one mask; got {num_masks}. Set num_masks.")
        if num_problems is not None and num_problems < 1:
            raise ValueError(
                f"the probe needs at least one problem; got {num_problems}. Set probe.num_problems."
            )
        if num_responses < 0 or (num_responses == 0 and references is None):
            raise ValueError(
                f"the probe scores own responses, references or both; got {num_responses} own "
                f"responses{' and no references' if references is None else ''}. Set probe.num_responses."
            )
        if tokens_per_pass < 1:
            raise ValueError(
                f"a pass holds at least one token; got {tokens_per_pass}. Set probe.tokens_per_pass."
            )
        self.mask = mask
        self.num_masks = num_masks
        self.num_problems = num_problems
        self.num_responses = num_responses
        self.references = references
        self.tokens_per_pass = tokens_per_pass
        self.seed = seed

    def num_read(self, problems: ProblemSource) -> int:
        """How many problems of a benchmark are looked at, those without a picture included."""
        return min(len(problems), self.num_problems or len(problems))

    def run(
        self,
        policy: ScoringPolicy,
        benchmark: Benchmark,
        records: Iterable[ResponseRecord],
        *,
        done: frozenset[str],
        ranks: Ranks,
    ) -> Iterator[tuple[TokenDivergence, ...]]:
        """Yields the divergences of one problem after another; none where there is nothing to score.

        All ranks make the same passes and take turns in scoring them.

        Args:
            policy: who reads the responses; gradient is off.
            benchmark: its problems.
            records: the policy's own graded responses; those of other benchmarks and views are ignored.
            done: ids of problems that need not be scored again.
            ranks: the processes of the evaluation; all are given the same, and yield the same.

        Raises:
            RanksDiffer: the ranks do not read the same problems.
        """
        own: dict[str, dict[int, ResponseRecord]] = {}
        for record in records:
            if (record.benchmark, record.view) == (benchmark.key, "image"):
                own.setdefault(record.problem_id, {})[record.response_index] = record
        begun: dict[int, _Job] = {}
        passes = self._passes(self._units(policy, benchmark, own, done, ranks), begun)
        for num_empty, sums in ranks.in_turn(
            passes,
            lambda one: (one.num_empty, self._score(policy, one.units)),
            shows=lambda one: [unit.job.problem_id for unit in one.units],
            remedy="They read benchmark.path of their own machines: give all the same files.",
        ):
            yield from [()] * num_empty
            for number, k3, exact in sums:
                job = begun[number]
                width = k3.shape[1]
                job.k3[:, :width] += k3
                job.exact[:, :width] += exact
                job.num_scored += 1
                if job.num_scored == self.num_masks:
                    yield tuple(self._divergences(policy, begun.pop(number)))

    def _passes(self, units: Iterable[_Unit | None], begun: dict[int, _Job]) -> Iterator[_Pass]:
        """Cuts the units into passes; notes in `begun` whose they are."""
        one = _Pass(units=[], num_empty=0)
        for unit in units:
            if unit is None:
                one.num_empty += 1
                continue
            if one.units and not self._fits([*one.units, unit]):
                yield one
                one = _Pass(units=[], num_empty=0)
            one.units.append(unit)
            begun[unit.job.number] = unit.job
        yield one

    def _units(
        self,
        policy: ScoringPolicy,
        benchmark: Benchmark,
        own: dict[str, dict[int, ResponseRecord]],
        done: frozenset[str],
        ranks: Ranks,
    ) -> Iterator[_Unit | None]:
        """The masks of every problem that is not done; None for a problem without any."""
        for index in range(self.num_read(benchmark.problems)):
            try:
                problem = benchmark.problems[index]
            except ProblemError:
                yield None  # named and counted by the runner
                continue
            if problem.id in done:
                continue
            responses = (
                self._responses(policy, benchmark.key, problem, own.get(problem.id, {}), ranks)
                if problem.images
                else []
            )
            if not responses:
                yield None
                continue
            shape = (len(responses), max(len(response.ids) for response in responses))
            job = _Job(
                number=index,
                benchmark=benchmark.key,
                problem_id=problem.id,
                responses=responses,
                k3=torch.zeros(shape, dtype=torch.float64),
                exact=torch.zeros(shape, dtype=torch.float64),
            )
            (group,) = policy.encode([problem])
            item_seed = derive_seed(self.seed, benchmark.key, problem.id)
            for mask_index in range(self.num_masks):
                seed = mask_seed(item_seed, self.mask, mask_index)
                masked = hide(group, self.mask, policy, seed=seed)
                yield _Unit(job=job, group=replace(group, views={MASKED: (masked,)}))

    def _responses(
        self,
        policy: ScoringPolicy,
        benchmark: str,
        problem: Problem,
        own: dict[int, ResponseRecord],
        ranks: Ranks,
    ) -> list[_Response]:
        found = []
        for index in range(self.num_responses):
            if index in own:
                record = own[index]
                try:
                    ids = tokenize_response(
                        policy, problem, record.response, ends=record.stop_reason == "end"
                    )
                except ValueError as error:
                    # A policy may spell that token letter by letter; its evaluation must not end there.
                    if ranks.writes:
                        _log.warning("left out of the probe: response %d, %s", index, error)
                    continue
                found.append(
                    _Response(kind="own", index=index, ids=ids, num_sampled=record.num_tokens)
                )
        text = self.references(benchmark, problem) if self.references is not None else None
        if text is not None:
            try:
                ids = tokenize_response(policy, problem, text, ends=True)
            except ValueError as error:
                if ranks.writes:
                    _log.warning("left out of the probe: the reference, %s", error)
            else:
                found.append(_Response(kind="reference", index=0, ids=ids, num_sampled=None))
        # A cut response of special tokens alone has no text, so nothing is left of it.
        return [response for response in found if response.ids]

    def _fits(self, units: Sequence[_Unit]) -> bool:
        """Whether units share a pass: equally many rows each, and within the budget."""
        rows = {unit.num_rows for unit in units}
        longest = max(unit.length for unit in units)
        return len(rows) == 1 and len(units) * max(rows) * longest <= self.tokens_per_pass

    @torch.no_grad()
    def _score(
        self, policy: ScoringPolicy, units: Sequence[_Unit]
    ) -> list[tuple[int, Float[Tensor, "rollout token"], Float[Tensor, "rollout token"]]]:
        """Returns the number of each unit's job, and k3 and the exact KL of its responses."""
        if not units:
            return []
        rows = [response.ids for unit in units for response in unit.job.responses]
        longest = max(map(len, rows))
        padding = policy.encoder.tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        scores = policy.score(
            [unit.group for unit in units],
            ids,
            torch.arange(longest) < lengths[:, None],
            views=(IMAGE, MASKED),
            full_vocabulary=True,
        )
        exact = scores[MASKED].kl_from_image
        assert exact is not None, "the full vocabulary was asked for"
        # float64, since r overflows float32 where the masked view all but excludes the other's token.
        k3 = kl_k3(
            scores[IMAGE].logprobs.double(),
            scores[MASKED].logprobs.double(),
            log_ratio_max=None,
        ).cpu()
        exact = exact.double().cpu()
        found, start = [], 0
        for unit in units:
            rows_of_unit = slice(start, start + unit.num_rows)
            width = min(longest, unit.job.exact.shape[1])
            found.append((unit.job.number, k3[rows_of_unit, :width], exact[rows_of_unit, :width]))
            start += unit.num_rows
        return found

    def _divergences(self, policy: ScoringPolicy, job: _Job) -> Iterator[TokenDivergence]:
        tokenizer = policy.encoder.tokenizer
        for row, response in enumerate(job.responses):
            length = len(response.ids)
            yield TokenDivergence(
                benchmark=job.benchmark,
                problem_id=job.problem_id,
                kind=response.kind,
                response_index=response.index,
                same_length=None
                if response.num_sampled is None
                else response.num_sampled == length,
                tokens=tuple(str(tokenizer.decode([one])) for one in response.ids),
                kl_k3=_rounded(job.k3[row, :length] / self.num_masks),
                kl_exact=_rounded(job.exact[row, :length] / self.num_masks),
            )


def tokenize_response(
    policy: ScoringPolicy, problem: Problem, text: str, *, ends: bool
) -> list[int]:
    """Returns the tokens of a response's text, the end of the turn behind them where it `ends`.

    Raises:
        ValueError: the text spells an image token.
    """
    encoder = policy.encoder
    # What the template already wrote of the response is part of the prompt.
    text = text.removeprefix(encoder.response_prefix(encoder.render(problem)))
    ids: list[int] = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    if ends:
        ids = [*ids, encoder.tokenizer.eos_token_id]
    if banned := set(ids) & set(policy.banned_token_ids):
        raise ValueError(
            f"a response to {shown(problem.id)!r} holds the image token "
            f"{encoder.tokenizer.decode([min(banned)])!r}, which no policy writes; take it out"
        )
    return ids


def _rounded(values: Float[Tensor, " token"]) -> tuple[float, ...]:
    # Single precision has no more than seven digits, and files are read by people.
    return tuple(float(f"{value:.6g}") for value in values.tolist())
