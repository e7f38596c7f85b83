"""The problems of the lab: a source to train on, its two fixed test sets, and which models it is for."""

from pathlib import Path
from typing import Any, get_args

import numpy as np

from papo.lab.report import LabHeldOut
from papo.lab.scene import Prior, draw_number, draw_scene
from papo.lab.shapes import RECTANGLE, operate, shape_named
from papo.lab.vocabulary import check_model_speaks, shortest_response
from papo.types import Problem, derive_seed, key_in


class PerceptionLabProblems:
    """An endless-looking source of drawn problems; item i depends only on (seed, i).

    `Problem.truth` holds operation, the number of each side (a, b ...), result, boxes (side -> ink
    box in pixels), prior and difficulty. Nothing is drawn until an item is read, so `size` may be as large as a run needs.

    Args:
        seed: two sources with different seeds share no scene but by chance.
        prior: "training" (numbers guessable from the question) or "uniform" (counter-prior).
        zipf_exponent: how steep the training prior is; 0 makes it uniform.
        difficulty: 0 (clean) to 1 (see `draw_scene`).
        size: how many problems there are.
        shape: "rectangle" (two readings, one step) or "quadrilateral" (four readings, three steps).
        section: where these settings stand in the configuration; messages name keys of it.
    """

    def __init__(
        self,
        *,
        seed: int,
        prior: Prior,
        zipf_exponent: float,
        difficulty: float,
        size: int,
        shape: str = RECTANGLE.name,
        section: str = "data",
    ) -> None:
        if prior not in get_args(Prior):
            raise ValueError(
                f"PerceptionLab knows the priors {', '.join(get_args(Prior))}; got {prior!r}. "
                f"Set {key_in(section, 'prior')}."
            )
        if not 0.0 <= difficulty <= 1.0:
            raise ValueError(
                f"a scene's difficulty lies between 0 and 1; got {difficulty}. "
                f"Set {key_in(section, 'difficulty')}."
            )
        if not 0.0 <= zipf_exponent < float("inf"):
            raise ValueError(
                "the training prior falls with the rank, so its exponent is at least 0 and finite; "
                f"got {zipf_exponent}. Set {key_in(section, 'zipf_exponent')}."
            )
        if size < 1:
            raise ValueError(
                f"PerceptionLab needs at least 1 problem; got {size}. Set {key_in(section, 'size')}."
            )
        if seed < 0:
            raise ValueError(
                f"PerceptionLab needs a seed of at least 0; got {seed}. "
                f"Set {key_in(section, 'seed')}."
            )
        self.section = section
        self.shape = shape_named(shape, key=key_in(section, "shape"))
        self.seed = seed
        self.prior: Prior = prior
        self.zipf_exponent = zipf_exponent
        self.difficulty = difficulty
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        """Returns problem `index`; raises IndexError beyond the size, so iteration ends."""
        if not 0 <= index < self.size:
            raise IndexError(f"problem {index} of {self.size}")
        rng = np.random.default_rng(derive_seed(self.seed, "scene", index))
        operations = tuple(self.shape.operations)
        operation = operations[rng.integers(len(operations))]
        numbers = [
            draw_number(rng, operation, side, prior=self.prior, zipf_exponent=self.zipf_exponent)
            for side in self.shape.sides
        ]
        image, boxes = draw_scene(rng, self.shape, *numbers, difficulty=self.difficulty)
        result = operate(operation, *numbers)
        truth: dict[str, Any] = {
            "operation": operation,
            **dict(zip(self.shape.sides, numbers, strict=True)),
            "result": result,
            "boxes": boxes,
            "prior": self.prior,
            "difficulty": self.difficulty,
        }
        return Problem(
            id=f"{self.shape.id_prefix}{self.prior}-{self.seed}-{index}",
            question=self.shape.operations[operation].question,
            answer=str(result),
            images=(image,),
            source="perception_lab",
            truth=truth,
        )

    def check_model(self, folder: str | None, *, max_response_tokens: int | None) -> None:
        """Refuses a model or a length of responses that no right answer could come from.

        Args:
            folder: of the model; None where it is not known.
            max_response_tokens: a response is cut at this length; None where the rest of the command says.

        Raises:
            ValueError: the model was made for another world, or every response would be cut off before its answer.
        """
        key = key_in(self.section, "shape")
        needed = shortest_response(self.shape)
        if max_response_tokens is not None and max_response_tokens < needed:
            raise ValueError(
                f"responses to {key}={self.shape.name} have at least {needed} tokens; got "
                f"rollout.max_response_tokens={max_response_tokens}. Raise it, or choose another {key}."
            )
        if folder:
            check_model_speaks(folder, self.shape, key=key)

    def require_start(self, folder: str | None) -> None:
        """Raises FileNotFoundError where the starting policy is not there; it is made, not downloaded."""
        if folder is not None and not (Path(folder).expanduser() / "config.json").is_file():
            raise FileNotFoundError(
                f"there is no model in model.path={folder}. Make a starting policy for data.shape={self.shape.name} "
                f"first: python scripts/warm_start_lab.py --output {folder} --shape {self.shape.name}"
            )

    def held_out(self, *, num_problems: int, num_responses: int, seed: int) -> LabHeldOut:
        """Returns the two test sets of these settings, as a run evaluates its policy on them.

        Args:
            num_problems: of each set.
            num_responses: sampled to each.
            seed: of the sampling, and of the intervals.
        """
        return LabHeldOut(
            sets=held_out_sets(
                zipf_exponent=self.zipf_exponent,
                difficulty=self.difficulty,
                size=num_problems,
                shape=self.shape.name,
                section=self.section,
            ),
            num_problems=num_problems,
            num_responses=num_responses,
            seed=seed,
        )


def held_out_sets(
    *,
    zipf_exponent: float,
    difficulty: float,
    size: int,
    shape: str = RECTANGLE.name,
    section: str = "data",
) -> dict[str, PerceptionLabProblems]:
    """Returns the two fixed test sets: "training prior" and "counter-prior" (uniform numbers).

    Their seeds are derived from their names, so no small seed that a run trains with draws them.
    """
    priors: dict[str, Prior] = {"training prior": "training", "counter-prior": "uniform"}
    return {
        name: PerceptionLabProblems(
            seed=derive_seed("held out", name),
            prior=prior,
            zipf_exponent=zipf_exponent,
            difficulty=difficulty,
            size=size,
            shape=shape,
            section=section,
        )
        for name, prior in priors.items()
    }
