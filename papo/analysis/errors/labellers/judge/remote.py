"""A judge behind any server that speaks the OpenAI protocol: OpenAI, vLLM, SGLang, Ollama, ..."""

import base64
import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

from papo.analysis.errors.labellers.judge.judge import Failure, Judge, Keep
from papo.analysis.errors.labellers.judge.prompt import JudgePrompt
from papo.analysis.errors.labellers.judge.replies import Reply
from papo.machine.deadline import within

_MAX_SERVER_TEXT = 4_000
_MAX_DETAIL = 300
_KEY_PIECE = 4
_TOO_LARGE = 413
_MAX_BODY_BYTES = 4_000_000
"""Of an answer, unpacked: a label has some hundred bytes, and the reasoning around it some 100,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    """Which parameters a server takes; each step away from the first is found out by a refusal."""

    token_limit: str
    temperature: bool
    schema: bool

    def without_what_is_refused(self, message: str) -> "_Dialect | None":
        """What to try after a refusal in these words; None where nothing is left to leave out."""
        if self.token_limit == "max_tokens" and re.search("max_(completion_)?tokens", message):
            return replace(self, token_limit="max_completion_tokens")
        if self.temperature and "temperature" in message:
            return replace(self, temperature=False)
        # Servers without schemas refuse them in many words.
        return replace(self, schema=False) if self.schema else None


class RemoteJudge(Judge):
    """Asks a server about each case: pictures as data addresses, greedy decoding, a JSON schema.

    A server that refuses `max_tokens` is asked with `max_completion_tokens`, one that refuses the
    temperature or the schema without it; that is found out once per judge, and every reply says
    with what it was asked. Too many requests, time-outs and errors of the server are tried again with
    growing pauses, then counted. Replies are kept on disk as they come, so that a second run asks for
    the rest only. The key is read from the environment and never written.

    Args:
        model: as the server names it.
        base_url: of the server, e.g. http://localhost:8000/v1; two servers share no replies.
        api_key_variable: environment variable that holds the key; None where the server wants none.
        temperature: of the judge's decoding; 0 is greedy, None leaves it to the server.
        max_tokens: of a reply.
        timeout_seconds: of one request, from its start to the last byte of its answer.
        max_retries: of one request.
        max_concurrency: requests under way at once.
        seed, max_image_side, cache: see `Judge`.
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
        temperature: float | None,
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
        decoding = f"temperature {'default' if temperature is None else f'{temperature:g}'}"
        super().__init__(
            model=model,
            identity=f"{base_url.rstrip('/')} {model}, {decoding}, {max_tokens} tokens",
            seed=seed,
            max_image_side=max_image_side,
            cache=cache,
        )
        self.base_url = base_url
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.max_concurrency = max_concurrency
        self.prices = (dollars_per_million_prompt_tokens, dollars_per_million_completion_tokens)
        self._dialect = _Dialect(
            token_limit="max_tokens", temperature=temperature is not None, schema=True
        )
        self._openai = openai
        self._http = _http_library(openai.DefaultHttpxClient)
        self._key = _api_key(api_key_variable)
        self._client = openai.OpenAI(
            # The client insists on a key; servers without keys ignore it.
            api_key=self._key or "none",
            base_url=base_url,
            timeout=timeout_seconds,
            max_retries=max_retries,
            http_client=_bounded_client(openai.DefaultHttpxClient, self._http, timeout_seconds),
        )

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Dollars for so many tokens; None where a price is not set."""
        prompt, completion = self.prices
        if prompt is None or completion is None:
            return None
        return (prompt_tokens * prompt + completion_tokens * completion) / 1e6

    def ask(self, prompts: Sequence[JudgePrompt], keep: Keep) -> Mapping[str, Failure]:
        """Asks about several cases at once.

        Reasons of failures are "timeout", "rate_limited", "server_error", "bad_request" and "bad_reply",
        with the server's words; the next run asks about these cases again.

        Raises:
            ValueError: the server cannot be reached, speaks another protocol, or refuses the key or
                the model.
        """
        failures = {}
        with ThreadPoolExecutor(self.max_concurrency) as pool:
            futures = {pool.submit(self._ask_one, prompt, keep): prompt for prompt in prompts}
            try:
                for future in as_completed(futures):
                    if failure := future.result():
                        failures[futures[future].key] = failure
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return failures

    def _ask_one(self, prompt: JudgePrompt, keep: Keep) -> Failure | None:
        """Keeps the reply, or says why there is none."""
        openai = self._openai
        try:
            reply = self._request(prompt)
        except openai.APITimeoutError:
            return Failure(reason="timeout")
        except openai.RateLimitError as error:
            return Failure(reason="rate_limited", detail=self._words_of(error))
        except openai.InternalServerError as error:
            return Failure(reason="server_error", detail=self._words_of(error))
        # One case may be too long, or break a rule of the server's; it must not stop the others.
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return Failure(reason="bad_request", detail=self._words_of(error))
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, self._http.DecodingError):
                return Failure(reason="bad_reply", detail=self._words_of(error.__cause__))
            raise ValueError(
                f"no judge can be reached at judge.base_url={self.base_url}; replies that came are "
                f"kept in {self.cache_folder}, and the same command asks for the rest"
            ) from error
        except openai.APIStatusError as error:
            if error.status_code == _TOO_LARGE:
                return Failure(reason="bad_request", detail=self._words_of(error))
            raise ValueError(
                f"the judge at {self.base_url} refused the request for model {self.model!r} with "
                f"status {error.status_code} ({self._words_of(error)}). Check judge.model, "
                "judge.base_url and the key in the variable that judge.api_key_variable names."
            ) from None
        if isinstance(reply, Failure):
            return reply
        keep(prompt.key, reply)
        return None

    def _request(self, prompt: JudgePrompt) -> Reply | Failure:
        """The reply in the first dialect that the server takes, which later requests then use."""
        dialect = self._dialect
        while True:
            try:
                reply = self._complete(prompt, dialect)
            except (self._openai.BadRequestError, self._openai.UnprocessableEntityError) as error:
                simpler = dialect.without_what_is_refused(str(error))
                if simpler is None:
                    raise
                dialect = simpler
            else:
                self._dialect = dialect
                return reply

    def _complete(self, prompt: JudgePrompt, dialect: _Dialect) -> Reply | Failure:
        pictures = [
            {"type": "image_url", "image_url": {"url": _data_address(image)}}
            for image in prompt.images
        ]
        parameters: dict[str, Any] = {dialect.token_limit: self.max_tokens}
        if dialect.temperature:
            parameters["temperature"] = self.temperature
        sent = dict(parameters)
        if dialect.schema:
            sent["response_format"] = "json_schema"
            parameters["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "strict": True, "schema": prompt.schema()},
            }
        messages: list[Any] = [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": [*pictures, {"type": "text", "text": prompt.text}]},
        ]
        try:
            completion = self._client.chat.completions.create(
                model=self.model, messages=messages, **parameters
            )
        except (json.JSONDecodeError, RecursionError) as error:
            return Failure(reason="bad_reply", detail=f"no JSON: {error}"[:_MAX_DETAIL])
        # The client hands a page of HTML through as text.
        if isinstance(completion, str):
            raise ValueError(
                f"what stands at judge.base_url={self.base_url} does not speak the OpenAI protocol; "
                "most servers do at an address that ends in /v1"
            )
        return self._read_completion(completion, sent)

    def _read_completion(self, completion: Any, sent: Mapping[str, Any]) -> Reply | Failure:
        """Checked by hand: the client builds what a server sends into its types without a look."""
        choices = getattr(completion, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        # Some servers answer 200 with an error inside, or with no reply at all.
        if message is None:
            extra = getattr(completion, "model_extra", None)
            error = extra.get("error", "") if isinstance(extra, dict) else ""
            return Failure(reason="server_error", detail=self._words_of(error))
        finish_reason = getattr(choice, "finish_reason", None)
        refused = bool(getattr(message, "refusal", None) or finish_reason == "content_filter")
        was_cut = finish_reason == "length"
        content = getattr(message, "content", None)
        if content is None and (refused or was_cut):
            content = ""
        if not isinstance(content, str):
            return Failure(
                reason="bad_reply",
                detail=f"the content of a reply is text; got {type(content).__name__}",
            )
        usage = getattr(completion, "usage", None)
        return Reply(
            content=content,
            refused=refused,
            was_cut=was_cut,
            prompt_tokens=_count(getattr(usage, "prompt_tokens", 0)),
            completion_tokens=_count(getattr(usage, "completion_tokens", 0)),
            sent=sent,
        )

    def _words_of(self, error: Any) -> str:
        """What the server said, shortened; words that may repeat the key are left out."""
        words = [
            "[key]" if self._key and _shares_characters(word, self._key) else word
            for word in str(error)[:_MAX_SERVER_TEXT].split()
        ]
        return " ".join(words)[:_MAX_DETAIL]


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _http_library(client_class: type) -> Any:
    """The library below the OpenAI client: httpx, or what came after it under another name."""
    names = (base.__module__.partition(".")[0] for base in client_class.__mro__)
    return sys.modules[next(name for name in names if name.startswith("httpx"))]


def _bounded_client(client_class: Any, http: Any, seconds: float) -> Any:
    """The HTTP client of the OpenAI client; its answers end in time and below a size.

    Args:
        client_class: the OpenAI client's own, which finds proxies and certificates.
        http: the library it is of; the OpenAI client tries again after its errors.
        seconds: of one request with its answer.
    """

    class BoundedClient(client_class):
        def send(self, request: Any, **options: Any) -> Any:
            try:
                return within(seconds, lambda: self._receive(request, options))
            except TimeoutError as error:
                raise http.ReadTimeout(str(error), request=request) from error

        def _receive(self, request: Any, options: Mapping[str, Any]) -> Any:
            end = time.monotonic() + seconds
            # A redirect's body would be read by the client itself, without a limit.
            options = {**options, "stream": True, "follow_redirects": False}
            response = super().send(request, **options)
            body = bytearray()
            try:
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > _MAX_BODY_BYTES:
                        raise http.DecodingError(
                            f"the answer is larger than {_MAX_BODY_BYTES:,} bytes", request=request
                        )
                    if time.monotonic() > end:
                        raise TimeoutError("nobody waits for the answer any more")
            finally:
                response.close()
            headers = [
                (name, value)
                for name, value in response.headers.multi_items()
                # The body is unpacked and whole by now.
                if name.lower() not in ("content-encoding", "content-length", "transfer-encoding")
            ]
            return type(response)(
                response.status_code, headers=headers, content=bytes(body), request=request
            )

    return BoundedClient()


def _shares_characters(word: str, key: str) -> bool:
    """Whether a word repeats a piece of the key: servers print its beginning and end."""
    length = min(_KEY_PIECE, len(key))
    return any(key[start : start + length] in word for start in range(len(key) - length + 1))


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not (key := os.environ.get(variable)):
        raise ValueError(
            f"the judge's key is read from the environment variable {variable}, which is not set. "
            "Export it, or set judge.api_key_variable (null where the server wants no key)."
        )
    return key


def _data_address(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
