"""Dynamic sampling (DAPO, arXiv:2503.14476): groups from whose comparison nothing is learnt are drawn again."""

from collections.abc import Callable
from dataclasses import dataclass

from papo.training.draft import Draft, concatenate
from papo.training.settings import TrainingSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnGroups:
    """The groups of a rollout, and what was drawn for them.

    Attributes:
        draft: as many groups as a rollout has.
        prompts_drawn: problems taken from the stream, dropped ones included.
        rounds: beyond the first draw.
        dropped: groups that were replaced.
        accuracy: share of correct responses, dropped groups included.
        timeouts: gradings killed at the deadline, dropped groups included.
    """

    draft: Draft
    prompts_drawn: int
    rounds: int
    dropped: int
    accuracy: float
    timeouts: int


def draw_groups(act: Callable[[int, int, int], Draft], settings: TrainingSettings) -> DrawnGroups:
    """Draws until a rollout is full of groups that say something, or `max_resample` rounds are over.

    Args:
        act: given the round, how many problems were drawn before it, and how many to draw, returns their
            graded groups.
        settings: how many groups, how many rounds, and which accuracies are kept.
    """
    wanted = settings.prompts_per_rollout
    kept: list[Draft] = []
    drawn = num_kept = dropped = rounds = timeouts = 0
    num_correct = 0.0
    while True:
        missing = wanted - num_kept
        draft = act(rounds, drawn, missing)
        drawn += missing
        timeouts += draft.rewards.timeouts
        num_correct += float(draft.mean_accuracies().sum())
        uniform = _uniform_groups(draft, settings)
        if not uniform or rounds == settings.max_resample:
            # After the last round the batch keeps its size: uniform groups have advantage 0.
            kept.append(draft)
            break
        dropped += len(uniform)
        informative = [i for i in range(missing) if i not in uniform]
        if informative:
            kept.append(draft.select(informative))
            num_kept += len(informative)
        rounds += 1
    return DrawnGroups(
        draft=concatenate(kept),
        prompts_drawn=drawn,
        rounds=rounds,
        dropped=dropped,
        accuracy=num_correct / drawn,
        timeouts=timeouts,
    )


def _uniform_groups(draft: Draft, settings: TrainingSettings) -> set[int]:
    """Groups that are replaced: nothing to learn from the comparison."""
    if settings.max_resample == 0:
        return set()
    accuracies = draft.mean_accuracies()
    informative = (accuracies > settings.keep_accuracy_above) & (
        accuracies < settings.keep_accuracy_below
    )
    return set((~informative).nonzero()[:, 0].tolist())
