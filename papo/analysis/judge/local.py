"""A judge in this process: a Hugging Face vision-language model, decoded greedily."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from papo.analysis.judge.prompt import JudgePrompt
from papo.analysis.judge.replies import Keep, Reply, Usage, judge_cases
from papo.analysis.taxonomy import Case, ErrorLabel, Exclusion
from papo.models import VisionLanguagePolicy
from papo.rollout import SharedPrefillSampler
from papo.types import IMAGE_MARKER, Problem


class LocalJudge:
    """Asks a model of the policy's families; no key, no network, no cost but time.

    Args:
        policy: the judging model.
        model: how labels and cached replies name it.
        max_tokens: of a reply.
        cases_at_once: decoded side by side.
        seed: of the categories' order.
        max_image_side: pictures are shrunk to it, in pixels.
        cache: folder of the kept replies.
    """

    def __init__(
        self,
        *,
        policy: VisionLanguagePolicy,
        model: str,
        max_tokens: int,
        cases_at_once: int,
        seed: int,
        max_image_side: int,
        cache: str,
    ) -> None:
        self.model = model
        self.max_tokens = max_tokens
        self.cases_at_once = cases_at_once
        self.seed = seed
        self.max_image_side = max_image_side
        self.cache_folder = Path(cache)
        self.usage = Usage()
        self._policy = policy
        self._sampler = SharedPrefillSampler(
            policy=policy,
            temperature=policy.temperature,
            top_p=1.0,
            top_k=1,
            max_response_tokens=max_tokens,
            max_rows=cases_at_once,
        )

    @property
    def name(self) -> str:
        """How labels.jsonl names this judge."""
        return f"judge:{self.model}"

    def can_label(self, case: Case) -> bool:
        """A judge may be asked about anything."""
        return True

    def cost(self) -> float | None:
        """Nothing is paid for."""
        return None

    def label(self, cases: Sequence[Case]) -> list[ErrorLabel | Exclusion]:
        """Returns one verdict per case; see `read_reply` for the exclusions."""
        verdicts, self.usage = judge_cases(
            cases,
            name=self.name,
            decoded_by=f"{self.model}, greedy, {self.max_tokens} tokens",
            seed=self.seed,
            max_image_side=self.max_image_side,
            cache_folder=self.cache_folder,
            ask=self._ask,
        )
        return verdicts

    def _ask(self, prompts: Sequence[JudgePrompt], keep: Keep) -> Mapping[str, str]:
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
                )
                keep(prompt.key, reply)
        return {}


def _as_problem(prompt: JudgePrompt) -> Problem:
    pictures = tuple(Image.open(io.BytesIO(image)).convert("RGB") for image in prompt.images)
    markers = IMAGE_MARKER * len(pictures)
    return Problem(
        id=prompt.key,
        question=f"{markers}{prompt.system}\n\n{prompt.text}",
        answer="-",
        images=pictures,
        source="judge",
    )
