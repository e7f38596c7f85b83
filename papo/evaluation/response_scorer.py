"""Scores given responses to problems, given the picture and given other views of it: one pass a view, whoever asks.

The perception probe and the audit of what a policy grounds read what comes of it. Not here: what is shown and what
the numbers mean.
"""

import logging
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from torch import Tensor

from papo.data import ProblemError
from papo.evaluation.benchmark import Benchmark
from papo.parallel import Ranks
from papo.types import (
    IMAGE,
    Problem,
    ProblemSource,
    PromptGroup,
    Quantity,
    ResponseRecord,
    TokenScores,
    derive_seed,
    shown,
)
from papo.views import Item

_log = logging.getLogger(__name__)

Reference = Callable[[str, Problem], str | None]
"""From a benchmark's key and a problem to a response; None where there is none."""

Values = Float[Tensor, "rollout token"]


@runtime_checkable
class ScoringPolicy(Protocol):
    """What scoring needs of a policy."""

    encoder: Any

    @property
    def banned_token_ids(self) -> tuple[int, ...]: ...

    def encode(self, problems: Sequence[Problem]) -> tuple[PromptGroup, ...]: ...

    def process_images(self, images: Sequence[Image]) -> Float[Tensor, "patch pixel"]: ...

    def measure(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        *,
        wanted: Collection[tuple[str, Quantity]],
    ) -> TokenScores: ...


Show = Callable[[Item, ScoringPolicy], Mapping[str, PromptGroup]]
"""The other views of a problem, by their names; `Item.group` is the prompt as it is. None: nothing is scored."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GivenResponse:
    """One response to score.

    Attributes:
        kind: "own" (sampled by the policy) or "reference".
        index: of the own response; 0 for a reference.
        ids: its tokens, the end of the turn included where it ended.
        num_sampled: how many were sampled; None for a reference.
    """

    kind: str
    index: int
    ids: list[int]
    num_sampled: int | None

    @property
    def same_length(self) -> bool | None:
        """Whether the text, made into tokens again, has as many as were sampled; None for a reference."""
        return None if self.num_sampled is None else self.num_sampled == len(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredProblem:
    """What a policy says of the responses to one problem.

    Attributes:
        problem_id: of the problem.
        responses: the rows of the values.
        logprobs: by view, the image among them: of every token, nats; 0.0 behind a response's end.
        kl: by view: KL(pi(. | q, I, o_<t) || pi(. | q, view, o_<t)) over the whole vocabulary, nats.
    """

    problem_id: str
    responses: Sequence[GivenResponse]
    logprobs: Mapping[str, Values]
    kl: Mapping[str, Values]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Job:
    """One problem with its views: what a group of a scoring pass is made of."""

    number: int
    responses: list[GivenResponse]
    group: PromptGroup
    is_done: bool

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(self.group.views)

    @property
    def length(self) -> int:
        """Of the longest row, whatever is shown."""
        prompts = [self.group, *(prompt for shown in self.group.views.values() for prompt in shown)]
        return max(prompt.prompt_ids.shape[0] for prompt in prompts) + self.num_tokens

    @property
    def num_tokens(self) -> int:
        return max(len(response.ids) for response in self.responses)


@dataclass(slots=True, kw_only=True, eq=False)
class _Pass:
    """What is scored together, and how many problems without anything to score came before it."""

    jobs: list[_Job]
    num_empty: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResponseScorer:
    """Scores a policy's own responses and references, problem by problem.

    Attributes:
        num_problems: the first so many of every benchmark; None for all.
        num_responses: score the first so many of the policy's own responses to each problem.
        references: gives the fixed response to a problem; None scores own responses alone.
        tokens_per_pass: rows times (prompt + longest response) of one view; bounds memory. One problem is never cut.
        seed: of the evaluation.
        section: where these settings stand in the configuration; messages name keys of it.

    Raises:
        ValueError: an impossible setting.
    """

    num_problems: int | None
    num_responses: int
    references: Reference | None
    tokens_per_pass: int
    seed: int
    section: str

    def __post_init__(self) -> None:
        section, own = self.section, self.num_responses
        if self.num_problems is not None and self.num_problems < 1:
            raise ValueError(
                f"the {section} needs at least one problem; got {self.num_problems}. Set {section}.num_problems."
            )
        if own < 0 or (own == 0 and self.references is None):
            raise ValueError(
                f"the {section} scores own responses, references or both; got {own} own responses"
                f"{' and no references' if self.references is None else ''}. Set {section}.num_responses."
            )
        if self.tokens_per_pass < 1:
            raise ValueError(
                f"a pass holds at least one token; got {self.tokens_per_pass}. Set {section}.tokens_per_pass."
            )

    def num_read(self, problems: ProblemSource) -> int:
        """How many problems of a benchmark are looked at, those without a picture included."""
        return min(len(problems), self.num_problems or len(problems))

    def run(
        self,
        policy: ScoringPolicy,
        benchmark: Benchmark,
        records: Iterable[ResponseRecord],
        *,
        show: Show,
        kl_views: Callable[[str], bool],
        done: frozenset[str],
        ranks: Ranks,
    ) -> Iterator[ScoredProblem | None]:
        """Yields one problem after another; None where there is nothing to score.

        All ranks make the same passes and take turns in scoring them.

        Args:
            policy: who reads the responses; gradient is off.
            benchmark: its problems.
            records: the policy's own graded responses; those of other benchmarks and views are ignored.
            show: the views of a problem that are scored beside the picture.
            kl_views: of which of them the KL is computed too.
            done: ids of problems that need not be scored again. They are read all the same, and passes are cut as if
                they were not done: what is scored beside them ends in the same digits.
            ranks: the processes of the evaluation; all are given the same, and yield the same.

        Raises:
            RanksDiffer: the ranks do not read the same problems.
        """
        own: dict[str, dict[int, ResponseRecord]] = {}
        for record in records:
            if (record.benchmark, record.view) == (benchmark.key, IMAGE):
                own.setdefault(record.problem_id, {})[record.response_index] = record
        begun: dict[int, _Job] = {}
        passes = self._passes(self._jobs(policy, benchmark, own, show, done, ranks), begun)
        for num_empty, found in ranks.in_turn(
            passes,
            lambda one: (one.num_empty, _score(policy, one.jobs, kl_views)),
            shows=lambda one: [job.group.problem.id for job in one.jobs],
            remedy="They read benchmark.path of their own machines: give all the same files.",
        ):
            yield from [None] * num_empty
            for number, logprobs, kl in found:
                if (job := begun.pop(number, None)) is None:
                    continue
                yield ScoredProblem(
                    problem_id=job.group.problem.id,
                    responses=job.responses,
                    logprobs=logprobs,
                    kl=kl,
                )

    def _passes(self, jobs: Iterable[_Job | None], begun: dict[int, _Job]) -> Iterator[_Pass]:
        """Cuts the jobs into passes; notes in `begun` those that are not done."""
        one = _Pass(jobs=[], num_empty=0)
        for job in jobs:
            if job is None:
                one.num_empty += 1
                continue
            if one.jobs and not self._fits([*one.jobs, job]):
                yield one
                one = _Pass(jobs=[], num_empty=0)
            one.jobs.append(job)
            if not job.is_done:
                begun[job.number] = job
        yield one

    def _fits(self, jobs: Sequence[_Job]) -> bool:
        """Whether jobs share a pass: equally many rows each, the same views, and within the budget."""
        rows = {len(job.responses) for job in jobs}
        longest = max(job.length for job in jobs)
        alike = len(rows) == 1 and len({job.views for job in jobs}) == 1
        return alike and len(jobs) * max(rows) * longest <= self.tokens_per_pass

    def _jobs(
        self,
        policy: ScoringPolicy,
        benchmark: Benchmark,
        own: dict[str, dict[int, ResponseRecord]],
        show: Show,
        done: frozenset[str],
        ranks: Ranks,
    ) -> Iterator[_Job | None]:
        """Every problem that is not done; None for one with nothing to score."""
        for index in range(self.num_read(benchmark.problems)):
            try:
                problem = benchmark.problems[index]
            except ProblemError:
                yield None  # named and counted by the runner
                continue
            responses = (
                self._responses(policy, benchmark.key, problem, own.get(problem.id, {}), ranks)
                if problem.images
                else []
            )
            if not responses:
                yield None
                continue
            (group,) = policy.encode([problem])
            item = Item(
                benchmark=benchmark.key,
                problems=benchmark.problems,
                index=index,
                problem=problem,
                seed=derive_seed(self.seed, benchmark.key, problem.id),
                group=group,
            )
            views = {name: (prompt,) for name, prompt in show(item, policy).items()}
            if not views:
                yield None
                continue
            yield _Job(
                number=index,
                responses=responses,
                group=replace(group, views=views),
                is_done=problem.id in done,
            )

    def _responses(
        self,
        policy: ScoringPolicy,
        benchmark: str,
        problem: Problem,
        own: dict[int, ResponseRecord],
        ranks: Ranks,
    ) -> list[GivenResponse]:
        found = []

        def left_out(what: str, error: ValueError) -> None:
            if ranks.writes:
                _log.warning("left out of the %s: %s, %s", self.section, what, error)

        for index in range(self.num_responses):
            if index in own:
                record = own[index]
                ends = record.stop_reason == "end"
                try:
                    ids = tokenize_response(policy, problem, record.response, ends=ends)
                except ValueError as error:
                    # A policy may spell that token letter by letter; its evaluation must not end there.
                    left_out(f"response {index}", error)
                    continue
                found.append(
                    GivenResponse(kind="own", index=index, ids=ids, num_sampled=record.num_tokens)
                )
        text = self.references(benchmark, problem) if self.references is not None else None
        if text is not None:
            try:
                ids = tokenize_response(policy, problem, text, ends=True)
                _require_kept(policy, problem, text, ids)
            except ValueError as error:
                left_out("the reference", error)
            else:
                found.append(GivenResponse(kind="reference", index=0, ids=ids, num_sampled=None))
        # A cut response of special tokens alone has no text, so nothing is left of it.
        return [response for response in found if response.ids]


def _score(
    policy: ScoringPolicy, jobs: Sequence[_Job], kl_views: Callable[[str], bool]
) -> list[tuple[int, dict[str, Values], dict[str, Values]]]:
    """Returns of each job its number, the log-probs of its responses by view, and the KL of some."""
    if all(job.is_done for job in jobs):
        return []
    rows = [response.ids for job in jobs for response in job.responses]
    longest = max(map(len, rows))
    padding = policy.encoder.tokenizer.pad_token_id or 0
    ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    views = jobs[0].views
    wanted: list[tuple[str, Quantity]] = [(view, "logprobs") for view in (IMAGE, *views)]
    wanted += [(view, "kl_from_image") for view in views if kl_views(view)]
    scores = policy.measure(
        [job.group for job in jobs], ids, torch.arange(longest) < lengths[:, None], wanted=wanted
    )
    logprobs = {view: one.logprobs.double().cpu() for view, one in scores.items()}
    kl = {
        view: one.kl_from_image.double().cpu()
        for view, one in scores.items()
        if view != IMAGE and one.kl_from_image is not None
    }
    found, start = [], 0
    for job in jobs:
        own = slice(start, start + len(job.responses)), slice(0, job.num_tokens)
        found.append(
            (
                job.number,
                {view: values[own].clone() for view, values in logprobs.items()},
                {view: values[own].clone() for view, values in kl.items()},
            )
        )
        start += len(job.responses)
    return found


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


def _require_kept(policy: ScoringPolicy, problem: Problem, text: str, ids: Sequence[int]) -> None:
    """Refuses a text that its tokens do not spell: what would be scored is another answer."""
    encoder = policy.encoder
    text = text.removeprefix(encoder.response_prefix(encoder.render(problem)))
    spelt = encoder.tokenizer.decode(ids, skip_special_tokens=True)
    # The lab's tokenizer writes a space between words, and some compose letters with their accents.
    if _letters(spelt) != _letters(text):
        raise ValueError(
            f"the answer to {shown(problem.id)!r}, {shown(text)!r}, is {shown(spelt)!r} in the tokens of this model"
        )


def _letters(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())
