"""What the port answers: what a trainer asks for, and with a key if there is one.

vLLM's own `--api-key` leaves the endpoints that change weights open, and its development mode, which has
these, also has /collective_rpc, which calls any method of a worker.
"""

import json
import os
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

OPEN = frozenset({"/health"})
ASKED = frozenset(
    {
        "/version",
        "/v1/models",
        "/weight_info",
        "/is_paused",
        "/is_sleeping",
        "/metrics",
        "/inference/v1/generate",
        "/init_weight_transfer_engine",
        "/start_weight_update",
        "/update_weights",
        "/finish_weight_update",
        "/pause",
        "/resume",
        "/reset_prefix_cache",
        "/reset_mm_cache",
        "/reset_encoder_cache",
        "/sleep",
        "/wake_up",
    }
)
"""All paths that are answered, and /health, which needs no key."""

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


class TrainerOnly:
    """ASGI middleware: 404 for any other path, 401 without the key of PAPO_ROLLOUT_KEY.

    Args:
        app: what it stands before.
    """

    def __init__(self, app: Application) -> None:
        self.app = app
        self.key = os.environ.get("PAPO_ROLLOUT_KEY", "").encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope.get("path") in OPEN:
            await self.app(scope, receive, send)
        elif scope["type"] != "http" or scope["path"] not in ASKED:
            await _answer(send, 404, "this server answers a trainer only")
        elif not self._has_key(scope["headers"]):
            await _answer(
                send, 401, "the key of PAPO_ROLLOUT_KEY is needed: Authorization: Bearer KEY"
            )
        else:
            await self.app(scope, receive, send)

    def _has_key(self, headers: list[tuple[bytes, bytes]]) -> bool:
        if not self.key:
            # Without a key a page in a browser on this machine could send requests; these name their origin.
            return not any(name == b"origin" for name, _ in headers)
        given = [value for name, value in headers if name == b"authorization"]
        return len(given) == 1 and secrets.compare_digest(given[0], b"Bearer " + self.key)


async def _answer(send: Any, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
