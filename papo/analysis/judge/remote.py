"""A judge behind any server that speaks the OpenAI protocol: OpenAI, vLLM, SGLang, Ollama, ..."""

import base64
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from papo.analysis.judge.prompt import JudgePrompt
from papo.analysis.judge.replies import Keep, Reply, Usage, judge_cases
from papo.analysis.taxonomy import Case, ErrorLabel, Exclusion


class RemoteJudge:
    """Asks a server about each case: pictures as data addresses, greedy decoding, a JSON schema.

    A server that refuses the schema is asked without it; the prompt describes the reply as well.
    Too many requests, time-outs and errors of the server are tried again with growing pauses, then
    counted. Replies are kept on disk as they come, so that a second run asks for the rest only. The
    key is read from the environment and never written.

    Args:
        model: as the server names it.
        base_url: of the server, e.g. http://localhost:8000/v1.
        api_key_variable: environment variable that holds the key; None where the server wants none.
        temperature: of the judge's decoding; 0 is greedy.
        max_tokens: of a reply.
        timeout_seconds: of one request.
        max_retries: of one request.
        max_concurrency: requests under way at once.
        seed: of the categories' order.
        max_image_side: pictures are shrunk to it, in pixels.
        cache: folder of the kept replies.
        dollars_per_million_prompt_tokens, dollars_per_million_completion_tokens: for the cost; None
            where it is not to be counted.

    Raises:
        ValueError: an impossible setting, the extra `judge` or the key is missing.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str,
        api_key_variable: str | None,
        temperature: float,
        max_tokens: int,
        timeout_seconds: float,
        max_retries: int,
        max_concurrency: int,
        seed: int,
        max_image_side: int,
        cache: str,
        dollars_per_million_prompt_tokens: float | None,
        dollars_per_million_completion_tokens: float | None,
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise ValueError(
                "a judge over the OpenAI protocol needs the extra `judge`: pip install 'papo[judge]'"
            ) from error
        if max_concurrency < 1:
            raise ValueError(
                f"a judge is asked by at least one thread; got judge.max_concurrency={max_concurrency}"
            )
        self.model = model
        self.base_url = base_url
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.max_concurrency = max_concurrency
        self.seed = seed
        self.max_image_side = max_image_side
        self.cache_folder = Path(cache)
        self.prices = (dollars_per_million_prompt_tokens, dollars_per_million_completion_tokens)
        self.usage = Usage()
        self._takes_schema = True
        self._openai = openai
        self._client = openai.OpenAI(
            api_key=_api_key(api_key_variable),
            base_url=base_url,
            timeout=timeout_seconds,
            max_retries=max_retries,
        )

    @property
    def name(self) -> str:
        """How labels.jsonl names this judge."""
        return f"judge:{self.model}"

    def can_label(self, case: Case) -> bool:
        """A judge may be asked about anything."""
        return True

    def cost(self) -> float | None:
        """Dollars for the replies that came now; None where a price is not set."""
        prompt, completion = self.prices
        if prompt is None or completion is None:
            return None
        tokens = self.usage
        return (tokens.prompt_tokens * prompt + tokens.completion_tokens * completion) / 1e6

    def label(self, cases: Sequence[Case]) -> list[ErrorLabel | Exclusion]:
        """Returns one verdict per case.

        Besides those of `read_reply`, reasons of exclusions are "timeout", "rate_limited",
        "server_error" and "bad_request"; the next run asks about these cases again.

        Raises:
            ValueError: the server cannot be reached or refuses the key or the model; what it replied
                until then is kept.
        """
        verdicts, self.usage = judge_cases(
            cases,
            name=self.name,
            decoded_by=f"{self.model}, temperature {self.temperature:g}, {self.max_tokens} tokens",
            seed=self.seed,
            max_image_side=self.max_image_side,
            cache_folder=self.cache_folder,
            ask=self._ask,
        )
        return verdicts

    def _ask(self, prompts: Sequence[JudgePrompt], keep: Keep) -> Mapping[str, str]:
        failures = {}
        with ThreadPoolExecutor(self.max_concurrency) as pool:
            futures = {pool.submit(self._ask_one, prompt, keep): prompt for prompt in prompts}
            try:
                for future in as_completed(futures):
                    if reason := future.result():
                        failures[futures[future].key] = reason
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return failures

    def _ask_one(self, prompt: JudgePrompt, keep: Keep) -> str | None:
        """Keeps the reply, or says why there is none."""
        openai = self._openai
        try:
            keep(prompt.key, self._request(prompt))
        except openai.APITimeoutError:
            return "timeout"
        except openai.RateLimitError:
            return "rate_limited"
        except openai.InternalServerError:
            return "server_error"
        # One case may be too long, or break a rule of the server's; it must not stop the others.
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            return "bad_request"
        except openai.APIConnectionError as error:
            raise ValueError(
                f"no judge can be reached at judge.base_url={self.base_url}; replies that came are "
                f"kept in {self.cache_folder}, and the same command asks for the rest"
            ) from error
        # The server's own words may repeat part of the key, so only its status is passed on.
        except openai.APIStatusError as error:
            raise ValueError(
                f"the judge at {self.base_url} refused the request for model {self.model!r} with "
                f"status {error.status_code}. Check judge.model, judge.base_url and the key in the "
                "variable that judge.api_key_variable names."
            ) from None
        return None

    def _request(self, prompt: JudgePrompt) -> Reply:
        with_schema = self._takes_schema
        try:
            return self._complete(prompt, with_schema=with_schema)
        except (self._openai.BadRequestError, self._openai.UnprocessableEntityError):
            if not with_schema:
                raise
        reply = self._complete(prompt, with_schema=False)
        self._takes_schema = False
        return reply

    def _complete(self, prompt: JudgePrompt, *, with_schema: bool) -> Reply:
        pictures = [
            {"type": "image_url", "image_url": {"url": _data_address(image)}}
            for image in prompt.images
        ]
        request: dict[str, Any] = {
            "model": self.model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "messages": [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": [*pictures, {"type": "text", "text": prompt.text}]},
            ],
        }
        if with_schema:
            request["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "strict": True, "schema": prompt.schema()},
            }
        completion = self._client.chat.completions.create(**request)
        # Some servers answer 200 with an error inside, or with no choice at all.
        choice = completion.choices[0] if completion.choices else None
        usage = completion.usage
        return Reply(
            content=(choice.message.content or "") if choice else "",
            refused=bool(
                choice
                and (
                    getattr(choice.message, "refusal", None)
                    or choice.finish_reason == "content_filter"
                )
            ),
            was_cut=bool(choice and choice.finish_reason == "length"),
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
        )


def _api_key(variable: str | None) -> str:
    if variable is None:
        return "none"  # the client insists on one; servers without keys ignore it
    if not (key := os.environ.get(variable)):
        raise ValueError(
            f"the judge's key is read from the environment variable {variable}, which is not set. "
            "Export it, or set judge.api_key_variable (null where the server wants no key)."
        )
    return key


def _data_address(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
