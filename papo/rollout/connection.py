"""Asking a server over HTTP: JSON objects of bounded size, by a deadline, and no other place than the one named."""

import http.client
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from papo.types import shown

KEY_VARIABLE = "PAPO_ROLLOUT_KEY"
"""The environment variable of the servers' key; it is never written or printed."""

_BYTES_AT_ONCE = 65_536
_BYTES_OF_A_REFUSAL = 4_096
_CHARACTERS_OF_A_REFUSAL = 300
# Seconds. A signal that another thread was given is handled once this one looks up.
_LOOKS_UP_AFTER = 0.5
# Too early, too slow, too many: the same question may be answered later, as after an error of the server (5xx).
_MAY_BE_ASKED_AGAIN = (408, 425, 429)

Job = TypeVar("Job")
Result = TypeVar("Result")


class ServerUnavailable(ValueError):
    """A server is not there, does not answer in time, or says itself that it failed."""


class ServerDiffers(ValueError):
    """A server answers, and not as one that holds this policy's weights and was asked this question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One server.

    Neither redirects nor proxies of the environment are followed: a question goes to the address of the
    settings, or nowhere.

    Attributes:
        url: http://HOST:PORT.
        key: sent as a bearer token; None where there is none.
        timeout_seconds: of one question, to the last byte of its answer.
        attempts: how often a question is asked before the server counts as away.
        pause_seconds: before the second attempt; each further pause is twice as long.

    Raises:
        ValueError: no such address.
    """

    url: str
    key: str | None = field(repr=False)
    timeout_seconds: float
    attempts: int
    pause_seconds: float

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        plain = not (parts.username or parts.query or parts.fragment or parts.path.strip("/"))
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise ValueError(
                f"a server is http://HOST:PORT, without a path or a key; got {shown(self.url)}. Set rollout.urls, "
                f"and the key as the environment variable {KEY_VARIABLE}."
            )

    def get(self, path: str, *, most_bytes: int = _BYTES_AT_ONCE) -> dict[str, Any]:
        """Returns the JSON object at a path.

        Raises:
            ServerUnavailable: after all attempts.
            ServerDiffers: it refuses the question, or its answer is no JSON object of this size.
        """
        return self._asked(path, None, most_bytes, self.attempts)

    def post(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        most_bytes: int = _BYTES_AT_ONCE,
        attempts: int | None = None,
    ) -> dict[str, Any]:
        """Sends a JSON object and returns the one that is answered; {} for an empty answer.

        Args:
            path: where to.
            body: what is sent.
            most_bytes: of the answer.
            attempts: fewer than of all questions, where asking twice is not the same as asking once.

        Raises:
            ServerUnavailable, ServerDiffers: as of `get`.
        """
        content = json.dumps(body or {}).encode()
        return self._asked(path, content, most_bytes, attempts or self.attempts)

    def _asked(
        self, path: str, content: bytes | None, most_bytes: int, attempts: int
    ) -> dict[str, Any]:
        for attempt in range(attempts):
            try:
                return self._once(path, content, most_bytes)
            except ServerUnavailable as error:
                if attempt + 1 == attempts:
                    tries = "" if attempts == 1 else f" (asked {attempts} times)"
                    raise ServerUnavailable(f"{error}{tries}") from error
                time.sleep(self.pause_seconds * 2**attempt)
        raise AssertionError("a question is asked at least once")

    def _once(self, path: str, content: bytes | None, most_bytes: int) -> dict[str, Any]:
        where = f"the rollout server {self.url}, asked for {path.partition('?')[0]},"
        request = urllib.request.Request(self.url.rstrip("/") + path, data=content)
        request.add_header("Content-Type", "application/json")
        if self.key:
            request.add_header("Authorization", f"Bearer {self.key}")
        deadline = time.monotonic() + self.timeout_seconds
        try:
            with _opener().open(request, timeout=self.timeout_seconds) as response:
                answer = self._read(response, most_bytes, deadline, where)
        except urllib.error.HTTPError as error:
            raise _refusal(error, where) from error
        except TimeoutError as error:
            raise self._late(where) from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                raise self._late(where) from error
            reason = shown(str(getattr(error, "reason", None) or error) or type(error).__name__)
            raise ServerUnavailable(f"{where} does not answer: {reason}") from error
        return _object(answer, where)

    def _read(self, response: Any, most_bytes: int, deadline: float, where: str) -> bytes:
        parts, size = [], 0
        # Not read(): a server that sends a byte now and then would never be late.
        while part := response.read1(_BYTES_AT_ONCE):
            parts.append(part)
            size += len(part)
            if size > most_bytes:
                raise ServerDiffers(f"{where} answers with more than {most_bytes:,} bytes")
            if time.monotonic() > deadline:
                raise self._late(where)
        return b"".join(parts)

    def _late(self, where: str) -> ServerUnavailable:
        return ServerUnavailable(
            f"{where} has not answered within rollout.timeout_seconds={self.timeout_seconds:g}"
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect an answer that is refused: it would take the key and the pictures elsewhere."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())


def _refusal(error: urllib.error.HTTPError, where: str) -> ServerUnavailable | ServerDiffers:
    try:
        text = error.read(_BYTES_OF_A_REFUSAL).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    said = f"{where} answers {error.code}: {shown(text, _CHARACTERS_OF_A_REFUSAL)}"
    if error.code >= 500 or error.code in _MAY_BE_ASKED_AGAIN:
        return ServerUnavailable(said)
    if error.code in (401, 403):
        return ServerDiffers(f"{said}. Its key comes from the environment variable {KEY_VARIABLE}.")
    return ServerDiffers(f"{said}. Is it one that servers/vllm/serve.sh started?")


def _object(answer: bytes, where: str) -> dict[str, Any]:
    if not answer.strip():
        return {}
    try:
        value = json.loads(answer, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        # Half an answer is no JSON either, and whole the next time.
        raise ServerUnavailable(
            f"{where} answers no JSON: {shown(answer[:200].decode('utf-8', 'replace'))}"
        ) from error
    if not isinstance(value, dict):
        raise ServerDiffers(f"{where} answers no JSON object: {shown(value)}")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


class SideBySide(Generic[Result]):
    """Jobs that threads do, while whoever began them does something else.

    Threads that wait for a server when another job fails, or when the work is stopped, are left to themselves:
    they end with their question or with the process.

    Args:
        work: done to every job, by any thread.
        jobs: what is to be done.
        at_once: threads.
    """

    def __init__(self, work: Callable[[Job], Result], jobs: Iterable[Job], *, at_once: int) -> None:
        waiting = queue.SimpleQueue[tuple[int, Job]]()
        for numbered in enumerate(jobs):
            waiting.put(numbered)
        self._count = waiting.qsize()
        self._done = queue.SimpleQueue[tuple[int, Result | None, BaseException | None]]()
        self._stopped = threading.Event()

        def help_out() -> None:
            while not self._stopped.is_set():
                try:
                    number, job = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    self._done.put((number, work(job), None))
                except BaseException as error:
                    self._stopped.set()
                    self._done.put((number, None, error))

        for _ in range(min(at_once, self._count)):
            threading.Thread(target=help_out, daemon=True, name="papo-rollout").start()

    def stop(self) -> None:
        """No further job is begun."""
        self._stopped.set()

    def results(self) -> list[Result]:
        """Waits; returns the result of every job, in their order. The first failure ends the rest, and is raised."""
        results: dict[int, Any] = {}
        try:
            while len(results) < self._count:
                try:
                    number, result, error = self._done.get(timeout=_LOOKS_UP_AFTER)
                except queue.Empty:
                    continue
                if error is not None:
                    raise error
                results[number] = result
        finally:
            self.stop()
        return [results[number] for number in range(self._count)]


def side_by_side(
    work: Callable[[Job], Result], jobs: Iterable[Job], *, at_once: int
) -> list[Result]:
    """Returns the result of every job, in their order; the first failure ends the rest."""
    return SideBySide(work, jobs, at_once=at_once).results()
