"""What the W&B dashboard shows, as data; scripts/make_dashboard.py turns it into a view.

Metrics are those of docs/metrics.md, media those of the rollout table (docs/dashboard.md).
"""

from dataclasses import dataclass

from papo.statistics import COLLAPSE_RULE

X_AXIS = "rollout_step"


@dataclass(frozen=True, slots=True)
class Curves:
    """Metrics that share a chart over rollouts.

    Attributes:
        title: of the chart.
        metrics: its curves.
        logarithmic: whether the y-axis is.
    """

    title: str
    metrics: tuple[str, ...]
    logarithmic: bool = False


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures or pages logged under some keys, side by side per rollout."""

    title: str
    media: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoggedTable:
    """A table that the runs have logged."""

    name: str


@dataclass(frozen=True, slots=True)
class Note:
    """What a reader has to know to read the charts beside it; Markdown."""

    text: str


Panel = Curves | Gallery | LoggedTable | Note


@dataclass(frozen=True, slots=True)
class Section:
    """A named row of panels; closed ones cost nothing until they are opened."""

    name: str
    panels: tuple[Panel, ...]
    is_open: bool


DASHBOARD = (
    Section(
        "Overview",
        (
            Curves("Reward", ("reward/mean",)),
            Curves("Correct", ("reward/correct", "resample/drawn_correct")),
            Curves("Perception KL, nats per token", ("loss/perception_kl",)),
            Curves("Loss", ("loss/total",)),
            Curves("Tokens of a response", ("response/tokens_mean", "response/tokens_max")),
            Curves("Responses that ended by themselves", ("response/finished",)),
        ),
        is_open=True,
    ),
    Section(
        "Perception",
        (
            Note(
                f"{COLLAPSE_RULE} `scripts/report_run.py` judges a run by it. The paper's signs, in its "
                "order: the KL climbs steeply, clipping from above and the entropy of both views climb, the "
                "reward falls (arXiv:2507.06448)."
            ),
            Curves("Perception KL, nats per token", ("loss/perception_kl",)),
            Curves(
                "Its variance over tokens", ("policy/perception_kl_variance",), logarithmic=True
            ),
            Curves("Clipped from above", ("policy/clip_fraction_high",)),
            Curves(
                "-log p of the sampled tokens, both views",
                ("policy/sampled_entropy", "policy/sampled_masked_entropy"),
            ),
            Curves("Entropy terms", ("loss/entropy", "loss/masked_entropy")),
            Curves("Tokens the masked view prefers", ("policy/masked_preferred_fraction",)),
            Curves("Patches hidden", ("masking/masked_fraction",)),
            Curves(
                "Misread (PerceptionLab)",
                ("reward/error_perception", "reward/correct_but_misread"),
            ),
        ),
        is_open=True,
    ),
    Section(
        "Policy health",
        (
            Curves("KL to the reference, nats per token", ("loss/kl_ref",)),
            Curves("KL to the rollout policy, nats per token", ("policy/old_kl",)),
            Curves("Norm of the gradient", ("update/grad_norm",), logarithmic=True),
            Curves(
                "Clipped tokens",
                (
                    "policy/clip_fraction_low",
                    "policy/clip_fraction_high",
                    "policy/clip_fraction_dual",
                ),
            ),
            Curves("Probability ratio, mean", ("policy/ratio_mean",)),
            Curves("Surrogate", ("loss/surrogate",)),
            Curves("Learning rate", ("update/learning_rate",)),
        ),
        is_open=False,
    ),
    Section(
        "Rewards",
        (
            Curves("Parts of the reward", ("reward/accuracy", "reward/format")),
            Curves("Spread", ("reward/std", "reward/std_all")),
            Curves("Groups with nothing to learn from", ("reward/uniform_groups",)),
            Curves("Advantages", ("advantages/max", "advantages/min")),
            Curves(
                "Errors (PerceptionLab)",
                (
                    "reward/error_perception",
                    "reward/error_reasoning",
                    "reward/error_calculation",
                    "reward/error_inconsistent",
                    "reward/error_format",
                ),
            ),
            Curves("Gradings that took too long", ("reward/timeouts",)),
            Curves("Dynamic sampling", ("resample/rounds", "resample/groups_dropped")),
        ),
        is_open=False,
    ),
    Section(
        "Rollouts",
        (
            LoggedTable("rollouts"),
            Gallery("Image and masked image", ("rollout_image", "rollout_masked_image")),
            Gallery("Perception KL of each token", ("rollout_heat_map",)),
        ),
        is_open=True,
    ),
    Section(
        "System",
        (
            Curves(
                "Seconds of each phase",
                ("seconds/rollout", "seconds/reward", "seconds/score", "seconds/update"),
            ),
            Curves("Tokens of a prompt", ("prompt/tokens_mean",)),
            Curves("Micro-batches halved", ("update/microbatch_halvings",)),
            Curves("Prompts and updates so far", ("prompts_drawn", "update_step")),
        ),
        is_open=False,
    ),
)
"""The dashboard, section by section."""
