"""The algorithm: act, judge, look again. From problems to a batch of graded, scored rollouts.

No gradient is computed here; papo.training.module turns a batch into updates.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter

import torch
from torch import Tensor

from papo.functional import group_advantages
from papo.objective import Blocks
from papo.parallel import NoSharding, Ranks, Sharding
from papo.rollout import WeightSource
from papo.training.agreement import Agreement, measure_agreement
from papo.training.ahead import Ahead, response_seeds
from papo.training.credit import CreditRule, credited
from papo.training.division import Division, MinibatchShare, divide
from papo.training.draft import Draft, DrawnPrompt, concatenate, from_plain, to_plain
from papo.training.dynamic_sampling import draw_groups
from papo.training.microbatches import (
    MicrobatchCutter,
    repeated_prefix_tokens,
    shared_prefix_tokens,
)
from papo.training.offload import NoOffload, Offload
from papo.training.prompt_reader import ActingPolicy, PromptReader
from papo.training.prompts import PromptStream
from papo.training.reference import ReferenceModule
from papo.training.sampling import sample_from
from papo.training.second_look import SecondLook
from papo.training.settings import TrainingSettings
from papo.types import (
    Needs,
    RewardFunction,
    RolloutBatch,
    RolloutEngine,
)
from papo.views import MASKED, View


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """One finished rollout; all but `batch`, `minibatches` and `seconds` is the same on every rank.

    Attributes:
        draft: the prompts, responses and rewards of all ranks, on the CPU.
        advantages: of every response of the draft.
        batch: what this rank's updates read, on the policy's device.
        minibatches: how the batch is cut into optimiser steps.
        seconds: wall time of the phases rollout, reward and score.
        prompts_drawn: problems taken from the stream, dropped ones included.
        resample_rounds: rounds of dynamic sampling beyond the first draw.
        groups_dropped: groups that dynamic sampling replaced.
        drawn_accuracy: share of correct responses, dropped groups included.
        timeouts: gradings killed at the deadline, dropped groups included.
        agreement: between the policy and the servers that wrote the responses; None where none did.
        age: rollouts between the weights that wrote the responses and those that learn from them, mean over prompts.
        changed: share of the patches of a prompt's images that each view changed, mean over the prompts with
            images (0 without any).
        credit: how far credits moved the advantages of tokens, by the names of the metrics; empty without any.
    """

    draft: Draft
    advantages: Tensor
    batch: RolloutBatch
    minibatches: tuple[MinibatchShare, ...]
    seconds: dict[str, float]
    prompts_drawn: int
    resample_rounds: int
    groups_dropped: int
    drawn_accuracy: float
    timeouts: int
    agreement: Agreement | None
    age: float
    changed: dict[str, float]
    credit: dict[str, float] = field(default_factory=dict)


class Collector:
    """Collects rollouts: samples, grades and scores the responses to the next problems.

    Every random choice is seeded by where it happens (seed, rollout, round, prompt), so a resumed
    run collects what the uninterrupted one would have, and any number of ranks what one would: each
    samples the responses to its share of the prompts, all learn of all responses, and each scores and
    trains the groups that papo.training.division gives it.

    Args:
        policy: acts, and scores its own responses to the masked image.
        reference: scores responses under the initial policy; None when its weight is 0.
        views: further ways to show a prompt, by name; those that `needs` names.
        engine: samples the responses.
        reward: grades them.
        prompts: the problems.
        settings: how many prompts, and dynamic sampling.
        num_responses: G.
        needs: what must be scored for the objective.
        sampled_from: how many of the responses to a prompt are sampled from views, by their names.
        credit: divides the advantages of responses among their tokens; None: each has that of its response.
        seed: of the run.
        ranks: the processes of the run.
        sharding: how the weights are spread over them; None: each has them all.
        weights: of the policy, for an engine that holds a copy; None: the engine reads the policy's own.
        offload: where what is not read while responses are sampled waits; None: where it is.
        prompt_workers: threads that decode and cut pictures; 0: none.
        rollouts_ahead: 1: the responses of the next rollout are written while the policy learns from this one.
        packs_pictures: whether patches are held as levels between rollout and update: less memory, the same bits.

    Attributes:
        idle: returns what is not read while responses are sampled; whoever trains the policy adds to it.
    """

    def __init__(
        self,
        *,
        policy: ActingPolicy,
        reference: ReferenceModule | None,
        views: Mapping[str, View],
        engine: RolloutEngine,
        reward: RewardFunction,
        prompts: PromptStream,
        settings: TrainingSettings,
        num_responses: int,
        needs: Needs,
        seed: int,
        ranks: Ranks,
        sampled_from: Mapping[str, int] | None = None,
        credit: CreditRule | None = None,
        sharding: Sharding | NoSharding | None = None,
        weights: WeightSource | None = None,
        offload: Offload | NoOffload | None = None,
        prompt_workers: int = 0,
        packs_pictures: bool = False,
        rollouts_ahead: int = 0,
    ) -> None:
        self.policy = policy
        self.reference = reference
        self.engine = engine
        self.reward = reward
        self.prompts = prompts
        self.sampled_from = dict(sampled_from or {})
        self.reader = PromptReader(
            policy=policy,
            prompts=prompts,
            workers=prompt_workers,
            packs=packs_pictures,
            views={name: views[name] for name in sorted({*needs.views, *self.sampled_from})},
            num_responses=num_responses,
        )
        self.ahead = Ahead(
            rollouts=rollouts_ahead,
            reader=self.reader,
            settings=settings,
            num_responses=num_responses,
            seed=seed,
        )
        self.settings = settings
        self.num_responses = num_responses
        self.needs = needs
        self.credit = credit
        self.seed = seed
        self.ranks = ranks
        self.sharding = sharding or NoSharding()
        self.weights = weights
        self.offload = offload or NoOffload()
        self.idle: Callable[[], Iterable[Tensor]] = list
        self.microbatches = MicrobatchCutter(
            prompts=settings.prompts_per_microbatch,
            tokens=settings.tokens_per_microbatch,
            count_tokens=shared_prefix_tokens if policy.shares_prefix else repeated_prefix_tokens,
            retries=not self.sharding.passes_are_collective,
        )
        self.look_again = SecondLook(
            policy=policy,
            reference=reference,
            needs=needs,
            num_responses=num_responses,
            microbatches=self.microbatches,
            sharding=self.sharding,
        )

    def prepare(self, position: int) -> None:
        """Begins to read this rank's first prompts of the rollout that draws from `position` on."""
        share = self.ranks.share(self.settings.prompts_per_rollout)
        self.reader.encoded.begin(position + index for index in share)

    def close(self) -> None:
        """Ends what reads ahead, and lets go of what is written ahead."""
        self.ahead.close()
        self.reader.encoded.close()

    @torch.no_grad()
    def collect(self, step: int, position: int, *, progress: float) -> Rollout:
        """Returns rollout number `step`, drawing problems from `position` of the stream on.

        Args:
            step: rollouts that are finished.
            position: in the stream of problems.
            progress: share of the run that is done, for views that change with it.

        Raises:
            ValueError: a view left every picture of the rollout as it was.
        """
        seconds = {"rollout": 0.0, "reward": 0.0, "score": 0.0}

        def act(round_index: int, drawn: int, count: int) -> Draft:
            return self._act_and_judge(
                step, round_index, position + drawn, count, seconds, progress
            )

        # Ranks write responses of different lengths: nothing of it may wait for another.
        with self.offload.away(self.idle()), self.sharding.whole(self.policy):
            with _timed(seconds, "rollout"):
                self.ahead.wait(step)
                self.follow(step)
            groups = draw_groups(act, self.settings)
            with _timed(seconds, "rollout"):
                self.ahead.begin(self.engine, step, position + groups.prompts_drawn)
            draft = groups.draft
            division = self._division(draft)
            with _timed(seconds, "score"):
                own = self._read_again(draft, division.mine, step, progress)
        advantages = group_advantages(
            draft.rewards.total,
            num_responses=self.num_responses,
            epsilon=self.settings.advantage_epsilon,
        )
        with _timed(seconds, "score"):
            batch = self.look_again(
                own,
                advantages.reshape(-1, self.num_responses)[division.mine].flatten(),
                division.fillers,
            )
        moved: dict[str, float] = {}
        if self.credit is not None:
            batch, moved = credited(
                batch,
                division.mine,
                credit=self.credit,
                blocks=self._blocks(draft),
                ranks=self.ranks,
                progress=progress,
            )
        return Rollout(
            draft=draft,
            advantages=advantages,
            batch=batch,
            minibatches=division.minibatches,
            seconds=seconds,
            prompts_drawn=groups.prompts_drawn,
            resample_rounds=groups.rounds,
            groups_dropped=groups.dropped,
            drawn_accuracy=groups.accuracy,
            timeouts=groups.timeouts,
            agreement=measure_agreement(batch, draft.responses, self.ranks),
            age=self.ahead.age(step) * _share_of_first_round(draft.prompts),
            changed={name: _mean_changed(draft.prompts, name) for name in self.reader.views},
            credit=moved,
        )

    @contextmanager
    def sampling(self, step: int) -> Iterator[None]:
        """Within, the engine samples with the weights that rollout number `step` is sampled with. Collective."""
        with self.offload.away(self.idle()), self.sharding.whole(self.policy):
            self.ahead.wait(step)
            self.follow(step)
            yield

    def follow(self, step: int) -> None:
        """Has the engine sample with the weights that rollout number `step` is sampled with."""
        if self.weights is not None:
            self.engine.follow(self.weights, str(step))

    def _act_and_judge(
        self,
        step: int,
        round_index: int,
        position: int,
        count: int,
        seconds: dict[str, float],
        progress: float,
    ) -> Draft:
        """One round of all ranks; each samples and grades its share."""
        share = self.ranks.share(count)
        with _timed(seconds, "rollout"):
            problems, prompts = self.reader.read(
                step, round_index, position, share, progress=progress
            )
            # Later rounds draw few prompts, whose pictures chance alone may leave untouched.
            if round_index == 0:
                self._require_changed(prompts, step)
            seeds = response_seeds(self.seed, step, round_index, count)
            if not prompts:
                return self._exchange(None)
            groups = [prompt.group for prompt in prompts if prompt.group is not None]
            own_seeds = [seeds[index] for index in share]
            if self.sampled_from:
                responses = sample_from(
                    self.engine, groups, self.num_responses, own_seeds, counts=self.sampled_from
                )
            else:
                responses = self.ahead.sample(self.engine, step, round_index, groups, own_seeds)
        with _timed(seconds, "reward"):
            per_response = [problem for problem in problems for _ in range(self.num_responses)]
            rewards = self.reward(per_response, responses.texts)
        return self._exchange(Draft(prompts=tuple(prompts), responses=responses, rewards=rewards))

    def _exchange(self, mine: Draft | None) -> Draft:
        """Returns what all ranks sampled, in the order of the prompts."""
        if self.ranks.size == 1:
            assert mine is not None, "one rank has every prompt"
            return mine
        everyone = self.ranks.gather(None if mine is None else to_plain(mine))
        return concatenate(
            [
                mine if rank == self.ranks.rank and mine is not None else from_plain(theirs)
                for rank, theirs in enumerate(everyone)
                if theirs is not None
            ]
        )

    def _require_changed(self, prompts: Sequence[DrawnPrompt], step: int) -> None:
        """Refuses a view that hides nothing: its KL from the image would be 0 and say nothing of it."""
        if not self.reader.views:
            return
        everyone = [
            one for share in self.ranks.gather([dict(p.changed) for p in prompts]) for one in share
        ]
        for name, view in self.reader.views.items():
            fractions = [one[name] for one in everyone]
            if view.hides and any(f is not None for f in fractions) and not any(fractions):
                remedy = (
                    "Raise masking.ratio, choose another mask (masking=)"
                    if name == MASKED
                    else f"Change objective.views.{name}"
                )
                raise ValueError(
                    f"the {name} view differs from the image in at least one patch; got {name} pictures "
                    f"equal to the full ones in all {len(fractions)} prompts of rollout {step + 1}. {remedy}, "
                    "or, where the pictures are black, another data set."
                )

    def _division(self, draft: Draft) -> Division:
        return divide(
            prompt_lengths=[prompt.num_tokens for prompt in draft.prompts],
            response_lengths=draft.num_tokens(),
            pictures=[prompt.has_picture for prompt in draft.prompts],
            prompts_per_minibatch=self.settings.prompts_per_minibatch,
            microbatches=self.microbatches,
            rank=self.ranks.rank,
            num_ranks=self.ranks.size,
            collective=self.sharding.passes_are_collective,
        )

    def _blocks(self, draft: Draft) -> Blocks:
        return Blocks(
            num_rollouts=len(draft.prompts) * self.num_responses,
            num_responses=self.num_responses,
            rollouts_per_minibatch=self.settings.prompts_per_minibatch * self.num_responses,
        )

    def _read_again(self, draft: Draft, mine: Sequence[int], step: int, progress: float) -> Draft:
        """The groups at this rank's places: their responses travelled, their prompts are read again."""
        own = draft if self.ranks.size == 1 else draft.select(mine)
        self.reader.encoded.begin(each.position for each in own.prompts if each.group is None)
        prompts = (self.reader.here(prompt, step, progress=progress) for prompt in own.prompts)
        return replace(own, prompts=tuple(prompts))


def _share_of_first_round(prompts: Sequence[DrawnPrompt]) -> float:
    return sum(prompt.round_index == 0 for prompt in prompts) / len(prompts)


def _mean_changed(prompts: Sequence[DrawnPrompt], view: str) -> float:
    fractions = [share for p in prompts if (share := p.changed[view]) is not None]
    return sum(fractions) / len(fractions) if fractions else 0.0


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = perf_counter()
    yield
    seconds[phase] += perf_counter() - started
