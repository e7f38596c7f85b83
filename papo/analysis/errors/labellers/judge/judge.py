"""What every judge does: ask for the replies that are not kept yet, and turn all into labels."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from papo.analysis.errors.labellers.judge.prompt import JudgePrompt, build_prompt
from papo.analysis.errors.labellers.judge.replies import Reply, ReplyCache, read_reply
from papo.analysis.errors.summary import AskedWith, JudgeFacts
from papo.analysis.errors.taxonomy import Case, ErrorCategory, ErrorLabel, Exclusion, label_case
from papo.storage.files import locked

Keep = Callable[[str, Reply], None]
"""Writes the reply to the prompt of this key down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a request got no reply.

    Attributes:
        reason: a short name, e.g. "timeout".
        detail: the server's words, shortened and without the key; may be empty.
    """

    reason: str
    detail: str = ""


class Judge(ABC):
    """A language model that labels cases; what differs is where it runs.

    Args:
        model: how labels and kept replies name it.
        identity: tells the model and its decoding from all others: replies are kept under it.
        seed: of the categories' order.
        max_image_side: pictures are shrunk to it, in pixels.
        cache: folder of the kept replies.
    """

    def __init__(
        self, *, model: str, identity: str, seed: int, max_image_side: int, cache: str
    ) -> None:
        self.model = model
        self.identity = identity
        self.seed = seed
        self.max_image_side = max_image_side
        self.cache_folder = Path(cache)
        self._came: list[Reply] = []
        self._used: list[Reply] = []
        self._num_kept = 0
        self._left_out: list[int] = []

    @property
    def name(self) -> str:
        """How labels.jsonl names this judge."""
        return f"judge:{self.model}"

    def can_label(self, case: Case) -> bool:
        """A judge may be asked about anything."""
        return True

    @abstractmethod
    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Dollars for so many tokens; None where that is not known."""

    @abstractmethod
    def ask(self, prompts: Sequence[JudgePrompt], keep: Keep) -> Mapping[str, Failure]:
        """Sends prompts, keeps each reply as it comes, and says why the others got none, by key."""

    def label(self, cases: Sequence[Case]) -> list[ErrorLabel | Exclusion]:
        """Returns one verdict per case, asking only for replies that the cache does not hold.

        A response without a final answer is a format error by definition; no judge is asked about
        it. Reasons of exclusions are those of `read_reply`, of `ask`, and "unreadable_image".

        Raises:
            ValueError: another process uses the cache, or the judge cannot be asked at all; what it
                replied until then is kept.
        """
        prompts: dict[str, JudgePrompt] = {}
        unreadable: set[str] = set()
        for case in cases:
            if not case.has_no_answer:
                try:
                    prompts[case.item] = build_prompt(
                        case,
                        decoded_by=self.identity,
                        seed=self.seed,
                        max_image_side=self.max_image_side,
                    )
                except ValueError:
                    unreadable.add(case.item)
        keys = {prompt.key: prompt for prompt in prompts.values()}
        with locked(self.cache_folder):
            cache = ReplyCache(self.cache_folder)
            self._left_out = cache.left_out
            missing = {key: prompt for key, prompt in keys.items() if cache.get(key) is None}
            failures = self.ask(list(missing.values()), cache.keep) if missing else {}
        self._came = [reply for key in missing if (reply := cache.get(key)) is not None]
        self._used = [reply for key in keys if (reply := cache.get(key)) is not None]
        self._num_kept = len(keys) - len(missing)

        def verdict(case: Case) -> ErrorLabel | Exclusion:
            if case.has_no_answer:
                return label_case(
                    case,
                    ErrorCategory.FORMAT,
                    labeller=self.name,
                    confidence=1.0,
                    evidence="no final answer to judge; the judge was not asked",
                )
            if case.item in unreadable:
                return Exclusion(item=case.item, labeller=self.name, reason="unreadable_image")
            key = prompts[case.item].key
            if (reply := cache.get(key)) is None:
                failure = failures[key]
                return Exclusion(
                    item=case.item,
                    labeller=self.name,
                    reason=failure.reason,
                    detail=failure.detail,
                )
            return read_reply(case, reply, labeller=self.name)

        return [verdict(case) for case in cases]

    def facts(self) -> JudgeFacts:
        """Returns what the last `label` took, and how it was asked."""
        prompt = sum(reply.prompt_tokens for reply in self._came)
        completion = sum(reply.completion_tokens for reply in self._came)
        ways = Counter((tuple(sorted(reply.sent.items())), reply.is_greedy) for reply in self._used)
        return JudgeFacts(
            judge=self.name,
            requests=len(self._came),
            from_cache=self._num_kept,
            prompt_tokens=prompt,
            completion_tokens=completion,
            left_out_of_cache=tuple(self._left_out),
            dollars=self.cost(prompt, completion),
            asked_with=tuple(
                AskedWith(parameters=dict(sent), greedy=is_greedy, replies=count)
                for (sent, is_greedy), count in ways.most_common()
            ),
        )
