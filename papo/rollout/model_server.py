"""One server of a model, in the words of vLLM's HTTP interface (servers/vllm says which version was tried)."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from papo.rollout.connection import KEY_VARIABLE, Connection, ServerDiffers, ServerUnavailable
from papo.types import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelServer:
    """What a run asks of a server.

    Attributes:
        connection: to it.
        model: the name that it serves the policy under.
    """

    connection: Connection
    model: str

    def __str__(self) -> str:
        return f"the rollout server {self.connection.url}"

    def max_model_len(self) -> int:
        """Returns how many tokens a prompt and its response may have together.

        Raises:
            ServerUnavailable: it does not answer.
            ServerDiffers: it does not serve the model, or does not say.
        """
        listed = self.connection.get("/v1/models").get("data")
        models: dict[str, Any] = {
            str(each.get("id")): each.get("max_model_len")
            for each in (listed if isinstance(listed, list) else ())
            if isinstance(each, dict)
        }
        if self.model not in models:
            raise ServerDiffers(
                f"{self} serves {shown(list(models))}, not rollout.model={self.model}. Serve the model that is trained "
                "under this name."
            )
        if type(models[self.model]) is not int:
            raise ServerDiffers(f"{self} does not say its max_model_len")
        return int(models[self.model])

    def require_room(self, *, prompt_tokens: int, response_tokens: int, room: int) -> None:
        """Refuses what does not fit: a server would cut the response, and say nothing.

        Raises:
            ServerDiffers: names the lengths.
        """
        if prompt_tokens + response_tokens > room:
            raise ServerDiffers(
                f"{self} has room for {room} tokens; a prompt of {prompt_tokens} and a response of "
                f"rollout.max_response_tokens={response_tokens} need {prompt_tokens + response_tokens}. Start it with "
                "a larger --max-model-len, or lower rollout.max_response_tokens."
            )

    def version(self) -> str:
        """Returns the name of the weights that it has."""
        return str(self.connection.get("/weight_info").get("weight_version"))

    def update(self, version: str, files: Sequence[str]) -> None:
        """Has it load the weights in some files of the folder that it was started with.

        Raises:
            ServerUnavailable: it is away, or refuses the weights.
            ServerDiffers: it has other weights afterwards.
        """
        # One attempt: half an update is not to be begun again.
        tell = partial(self.connection.post, attempts=1)
        # Waits for answers under way, so that none is written with two versions.
        tell("/pause?mode=wait")
        self._start_update(tell)
        for name in files:
            tell("/update_weights", {"update_info": {"name": name}})
        tell("/finish_weight_update", {"weight_version": version})
        # What was computed from prompts and pictures belongs to the weights before.
        for cache in ("prefix", "mm", "encoder"):
            tell(f"/reset_{cache}_cache")
        tell("/resume")
        if (now := self.version()) != version:
            raise ServerDiffers(
                f"{self} took the weights {version}, and says that it has {shown(now)}"
            )

    def _start_update(self, tell: Callable[..., Any]) -> None:
        try:
            tell("/start_weight_update")
        except (ServerUnavailable, ServerDiffers):
            # One that a killed trainer began may be open; a part that is refused ends it.
            with suppress(ServerUnavailable, ServerDiffers):
                tell("/update_weights", {"update_info": {"name": ""}})
            tell("/start_weight_update")

    def generate(self, body: Mapping[str, Any], *, most_bytes: int) -> dict[str, Any]:
        """Returns the answer to one prompt; the same question has the same answer, so it may be asked again.

        Raises:
            ServerUnavailable, ServerDiffers: as of Connection.
        """
        return self.connection.post("/inference/v1/generate", dict(body), most_bytes=most_bytes)


def model_servers(
    urls: Sequence[str],
    *,
    model: str,
    timeout_seconds: float,
    attempts: int,
    pause_seconds: float,
) -> list[ModelServer]:
    """Returns the servers at some addresses; asks none.

    Raises:
        ValueError: there is none, one twice, or an impossible setting.
    """
    if isinstance(urls, str) or not urls or len(set(urls)) < len(urls):
        raise ValueError(
            f"rollouts come from at least one server, each named once; got {urls!r}. Set "
            "rollout.urls=[http://HOST:PORT]."
        )
    for name, value, least in (
        ("timeout_seconds", timeout_seconds, 1e-3),
        ("attempts", attempts, 1),
        ("pause_seconds", pause_seconds, 0),
    ):
        if not value >= least:
            raise ValueError(f"rollout.{name} is at least {least:g}; got {value}")
    return [
        ModelServer(
            model=model,
            connection=Connection(
                url=url,
                key=os.environ.get(KEY_VARIABLE),
                timeout_seconds=timeout_seconds,
                attempts=attempts,
                pause_seconds=pause_seconds,
            ),
        )
        for url in urls
    ]
