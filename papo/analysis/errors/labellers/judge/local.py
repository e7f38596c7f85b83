"""A judge in this process: a Hugging Face vision-language model, decoded greedily."""

from collections.abc import Mapping, Sequence

from PIL import Image

from papo.analysis.errors.labellers.judge.judge import Failure, Judge, Keep
from papo.analysis.errors.labellers.judge.prompt import JudgePrompt
from papo.analysis.errors.labellers.judge.replies import Reply
from papo.models import VisionLanguagePolicy
from papo.rollout import SharedPrefillSampler
from papo.storage.pictures import opened_picture
from papo.types import IMAGE_MARKER, Problem


class LocalJudge(Judge):
    """Asks a model of the policy's families; no key, no network, no cost but time.

    Args:
        policy: the judging model.
        weights: folder of its weights, None for the hub's: two models of one name share no replies.
        model: how labels and cached replies name it.
        max_tokens: of a reply.
        cases_at_once: decoded side by side.
        seed, max_image_side, cache: see `Judge`.
    """

    def __init__(
        self,
        *,
        policy: VisionLanguagePolicy,
        weights: str | None,
        model: str,
        max_tokens: int,
        cases_at_once: int,
        seed: int,
        max_image_side: int,
        cache: str,
    ) -> None:
        super().__init__(
            model=model,
            identity=f"{weights or 'hub'} {model}, greedy, {max_tokens} tokens",
            seed=seed,
            max_image_side=max_image_side,
            cache=cache,
        )
        self.max_tokens = max_tokens
        self.cases_at_once = cases_at_once
        self._policy = policy
        self._sampler = SharedPrefillSampler(
            policy=policy,
            temperature=policy.temperature,
            top_p=1.0,
            top_k=1,
            max_response_tokens=max_tokens,
            max_rows=cases_at_once,
        )

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Nothing is paid for."""
        return None

    def ask(self, prompts: Sequence[JudgePrompt], keep: Keep) -> Mapping[str, Failure]:
        """Decodes a few replies at a time; none fails."""
        for start in range(0, len(prompts), self.cases_at_once):
            some = prompts[start : start + self.cases_at_once]
            groups = self._policy.encode([_as_problem(prompt) for prompt in some])
            # Greedy decoding draws nothing, so the seeds do not matter.
            responses = self._sampler.sample(groups, 1, [0] * len(some))
            lengths = responses.mask.sum(dim=1).tolist()
            for index, prompt in enumerate(some):
                reply = Reply(
                    content=responses.texts[index],
                    was_cut=not bool(responses.finished[index]),
                    prompt_tokens=len(groups[index].prompt_ids),
                    completion_tokens=int(lengths[index]),
                    sent={"top_k": 1, "max_tokens": self.max_tokens},
                )
                keep(prompt.key, reply)
        return {}


def _as_problem(prompt: JudgePrompt) -> Problem:
    pictures = tuple(_decoded(image) for image in prompt.images)
    markers = IMAGE_MARKER * len(pictures)
    return Problem(
        id=prompt.key,
        question=f"{markers}{prompt.system}\n\n{prompt.text}",
        answer="-",
        images=pictures,
        source="judge",
    )


def _decoded(image: bytes) -> Image.Image:
    with opened_picture(image, formats=("PNG",)) as picture:
        return picture.convert("RGB")
