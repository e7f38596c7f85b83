"""One step ahead: the responses of the next rollout are written while the policy learns from this one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

from papo.rollout import sampled_here
from papo.training.prompt_reader import PromptReader
from papo.training.settings import TrainingSettings
from papo.types import Begun, PromptGroup, Responses, RolloutEngine, derive_seed, derive_seeds

MOST_AHEAD = 1
"""Rollouts: no policy learns from responses of weights that are older."""


@runtime_checkable
class EngineAhead(RolloutEngine, Protocol):
    """An engine that can be asked now and answer later."""

    def begin(
        self, groups: Sequence[PromptGroup], num_responses: int, seeds: Sequence[int]
    ) -> Begun: ...


@dataclass(slots=True, kw_only=True, eq=False)
class _Written:
    """The responses to the first prompts of a rollout.

    Attributes:
        weights: the number of the rollout before whose update the weights that write them were there.
        begun: None once they have been waited for.
        responses: None: not there yet, or they could not be written.
        error: why they could not, where that ends the run.
    """

    weights: int
    begun: Begun | None = None
    responses: Responses | None = None
    error: Exception | None = None

    def wait(self) -> None:
        """Waits for the engine; what went wrong is kept for whoever wants the responses."""
        if self.begun is None:
            return
        try:
            self.responses = self.begun.finish()
        except Exception as error:
            self.error = error
        self.begun = None


class Ahead:
    """Has responses written ahead, hands them out, and keeps those that nothing was learned from.

    What stands at a place depends on the place alone (the weights, the prompt, the seed), so responses that a
    checkpoint holds are those that the uninterrupted run learns from.

    Args:
        rollouts: how many rollouts the responses are ahead of the updates: 0 or 1.
        reader: of the prompts.
        settings: how many prompts a rollout has, and how many rollouts the run.
        num_responses: G.
        seed: of the run.
    """

    def __init__(
        self,
        *,
        rollouts: int,
        reader: PromptReader,
        settings: TrainingSettings,
        num_responses: int,
        seed: int,
    ) -> None:
        assert 0 <= rollouts <= MOST_AHEAD
        self.rollouts = rollouts
        self.reader = reader
        self.settings = settings
        self.num_responses = num_responses
        self.seed = seed
        self._written: dict[int, _Written] = {}

    def begin(self, engine: RolloutEngine, step: int, position: int) -> None:
        """Has the responses of the rollout after number `step` begun, with the weights that the engine has now.

        After the run's last rollout too: it may be made longer, and these weights are then gone.

        Args:
            engine: writes them.
            step: the rollout that the policy is about to learn from.
            position: in the stream of problems, of the next one's first prompt.
        """
        if not self.rollouts:
            return
        assert isinstance(engine, EngineAhead), "check_ahead refuses engines that cannot"
        count = self.settings.prompts_per_rollout
        begun = engine.begin(
            self.reader.plain(range(position, position + count)),
            self.num_responses,
            response_seeds(self.seed, step + 1, 0, count),
        )
        # A state that is saved before this rollout's update is over needs its responses again.
        self._written = {at: one for at, one in self._written.items() if at == step}
        self._written[step + 1] = _Written(weights=step, begun=begun)

    def wait(self, step: int) -> None:
        """Waits for the responses of a rollout: before this, the engine must be given no other weights.

        Raises:
            Exception: as of the engine, unless the run is over and does not learn from them.
        """
        if (written := self._written.get(step)) is None:
            return
        written.wait()
        if written.error is not None and step < self.settings.num_rollouts:
            raise written.error

    def sample(
        self,
        engine: RolloutEngine,
        step: int,
        round_index: int,
        groups: Sequence[PromptGroup],
        seeds: Sequence[int],
    ) -> Responses:
        """Returns the responses to prompts of a round of a rollout: those written ahead, or of the newest weights.

        The latter are all of the first rollout, of further rounds of dynamic sampling, and where a server was away.
        """
        if round_index == 0 and (found := self._of(step)) is not None:
            assert found.ids.shape[0] == len(groups) * self.num_responses
            return found
        responses = engine.sample(groups, self.num_responses, seeds)
        if self.rollouts and responses.behaviour_logprobs is None:
            return sampled_here(responses)
        return responses

    def age(self, step: int) -> int:
        """Rollouts between the weights that wrote a rollout's first round and those that learn from it."""
        age = 0 if self._of(step) is None else step - self._written[step].weights
        assert age <= MOST_AHEAD
        return age

    def state(self, step: int) -> dict[str, Any] | None:
        """Returns what a run that goes on with rollout number `step` needs, plain values and tensors. Waits.

        None: there is nothing that it would not make in the ordinary way, an engine that failed included.
        """
        if (written := self._written.get(step)) is not None:
            written.wait()
        if (responses := self._of(step)) is None:
            return None
        return {
            "step": step,
            "weights": self._written[step].weights,
            "responses": {
                field.name: getattr(responses, field.name) for field in fields(responses)
            },
        }

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Goes on from what `state` returned."""
        self.close()
        if state is not None:
            self._written[state["step"]] = _Written(
                weights=state["weights"], responses=Responses(**state["responses"])
            )

    def close(self) -> None:
        """Lets go of what nobody will learn from."""
        for written in self._written.values():
            if written.begun is not None:
                written.begun.stop()
        self._written = {}

    def _of(self, step: int) -> Responses | None:
        written = self._written.get(step)
        return None if written is None else written.responses


def response_seeds(seed: int, step: int, round_index: int, count: int) -> list[int]:
    """Returns the seeds of the prompts of a round of a rollout, by their places."""
    return derive_seeds(derive_seed(seed, "rollout", step, round_index), count)
