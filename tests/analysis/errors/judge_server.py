"""A server that speaks the OpenAI protocol as far as a judge needs it, and misbehaves on demand."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = dict[str, Any] | str | Iterator[bytes]
Behave = Callable[[dict[str, Any], int], tuple[int, Answer]]
"""(request, how many came before it) -> (status, body); pieces are sent as they come, headers included."""


@dataclass
class JudgeServer:
    """What the server saw.

    Attributes:
        url: its base_url.
        requests: the bodies, in the order in which they came.
        headers: of each request.
        behave: what it answers.
        most_at_once: requests that were under way together.
    """

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    behave: Behave = lambda request, before: (200, completion("{}"))
    most_at_once: int = 0
    under_way: int = 0


def completion(content: str | None, **message: Any) -> dict[str, Any]:
    """A reply of the chat completions endpoint."""
    finish_reason = message.pop("finish_reason", "stop")
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "judge",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": content, **message},
            }
        ],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050},
    }


def verdict(category: str, quote: str, **values: Any) -> dict[str, Any]:
    """A reply that labels."""
    label = {"evidence": "it does", "quote": quote, "category": category, "confidence": 0.8}
    return completion(json.dumps(label | values))


@contextmanager
def running_judge_server(behave: Behave) -> Iterator[JudgeServer]:
    """A server on a free port of this machine, for as long as the block lasts."""
    server = JudgeServer(behave=behave)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                before = len(server.requests)
                server.requests.append(body)
                server.headers.append({k.lower(): v for k, v in self.headers.items()})
                server.under_way += 1
                server.most_at_once = max(server.most_at_once, server.under_way)
            try:
                status, answer = server.behave(body, before)
            finally:
                with lock:
                    server.under_way -= 1
            if isinstance(answer, Iterator):
                self.send_pieces(answer)
                return
            encoded = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            try:
                self.send_response(status)
                kind = "text/html" if encoded.startswith(b"<") else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Retry-After-Ms", "10")
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client gave up waiting

        def send_pieces(self, pieces: Iterator[bytes]) -> None:
            for piece in pieces:
                try:
                    self.wfile.write(piece)
                except (BrokenPipeError, ConnectionResetError):
                    return

        def log_message(self, *arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def slowly(seconds: float, behave: Behave) -> Behave:
    """The same, after a while."""

    def wait_first(request: dict[str, Any], before: int) -> tuple[int, Answer]:
        time.sleep(seconds)
        return behave(request, before)

    return wait_first


def text_of(request: dict[str, Any]) -> str:
    """The text of the user's turn."""
    return str(request["messages"][1]["content"][-1]["text"])
