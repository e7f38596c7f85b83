"""Rollouts on servers: they hold a copy of the policy, and nothing of an answer is taken on trust.

docs/rollouts.md says which engine to take when. The servers are servers/vllm; only HTTP and files lead there.
"""

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch

from papo.rollout.connection import (
    ServerDiffers,
    ServerUnavailable,
    SideBySide,
    side_by_side,
)
from papo.rollout.model_server import ModelServer, model_servers
from papo.rollout.parity import Parity, measure_parity
from papo.rollout.sampler import SharedPrefillSampler, check_call, sampled_here
from papo.rollout.served_policy import ServedPolicy
from papo.rollout.served_prompt import Drawing, ServedResponse, most_bytes, question, read_answer
from papo.rollout.weight_source import WeightSource
from papo.types import Begun, PromptGroup, Responses, derive_seed, shown

_log = logging.getLogger(__name__)

# Of one question that takes no thinking.
_PREFLIGHT_SECONDS = 30.0
_START = "Start one as servers/vllm/README.md says, and set rollout.urls=[http://HOST:PORT]."
_DTYPES = {None: None, "float32": torch.float32, "bfloat16": torch.bfloat16}
_ON_FAILURE = ("stop", "local")
# A parity probe: enough tokens to meet a weight that is wrong, few enough to cost nothing.
_PROBE_PROMPTS = 8
_PROBE_TOKENS = 32


class ServerRollouts:
    """Samples on servers that are given the policy's weights before every rollout.

    Prompts are dealt over the servers by their place in the call. Before the first call with new weights
    every server answers a parity probe: its log-probabilities of some tokens are compared with the policy's
    own. Every response says which weights wrote it.

    Args:
        policy: whose copy the servers hold.
        urls: of the servers.
        model: the name that they serve it under.
        weights_folder: where the weights are handed over; the servers were started with it.
        weights_dtype: float32 or bfloat16; None: as the policy holds them.
        part_bytes: of a file of weights.
        temperature, top_p, top_k, max_response_tokens: as of SharedPrefillSampler.
        tolerance: nats by which a server's log-probability of a token may differ from the policy's.
        at_once: questions under way at once, to each server.
        timeout_seconds, attempts, pause_seconds: as of Connection.
        on_failure: `stop` the run where a server is away, or sample with the policy itself (`local`) until the
            weights change again. A server that answers wrongly always stops the run.
        max_rows: of local sampling.

    Raises:
        ValueError: an impossible setting.
    """

    has_own_logprobs = True
    """What it says of a token is not what the policy says (objective.importance_cap)."""

    def __init__(
        self,
        *,
        policy: ServedPolicy,
        urls: Sequence[str],
        model: str,
        weights_folder: str,
        weights_dtype: str | None,
        part_bytes: int,
        temperature: float,
        top_p: float,
        top_k: int | None,
        max_response_tokens: int,
        tolerance: float,
        at_once: int,
        timeout_seconds: float,
        attempts: int,
        pause_seconds: float,
        on_failure: str,
        max_rows: int,
    ) -> None:
        if not policy.can_be_served:
            raise ValueError(
                "rollout servers cut pictures of this model's family into tiles of their own, and would read other "
                "prompts; set rollout=shared_prefill"
            )
        self.local = SharedPrefillSampler(
            policy=policy,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            max_response_tokens=max_response_tokens,
            max_rows=max_rows,
        )
        self.policy = policy
        self.servers = model_servers(
            urls,
            model=model,
            timeout_seconds=timeout_seconds,
            attempts=attempts,
            pause_seconds=pause_seconds,
        )
        _check_choice("weights_dtype", weights_dtype, tuple(_DTYPES))
        _check_choice("on_failure", on_failure, _ON_FAILURE)
        for name, value in (
            ("tolerance", tolerance),
            ("at_once", at_once),
            ("part_bytes", part_bytes),
        ):
            if not value > 0:
                raise ValueError(f"rollout.{name} is above 0; got {value}")
        self.model = model
        self.folder = Path(weights_folder).expanduser()
        self.dtype = _DTYPES[weights_dtype]
        self.part_bytes = part_bytes
        self.drawing = partial(
            Drawing,
            model=model,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            max_response_tokens=max_response_tokens,
        )
        self.tolerance = tolerance
        self.at_once = at_once * len(self.servers)
        self.on_failure = on_failure
        self.max_response_tokens = max_response_tokens
        self.max_model_len: int | None = None
        self._run: str | None = None
        self._version: str | None = None
        self._needs_probe = True
        self._is_away = False

    @staticmethod
    def preflight(settings: Mapping[str, Any], *, longest_prompt: int = 1) -> None:
        """Asks every server whether it is there and what it serves, before a model is loaded.

        Args:
            settings: of the constructor, but for the policy.
            longest_prompt: tokens of it, as far as known.

        Raises:
            ValueError: a server is away or serves something else; says how to start one.
        """
        names = ("urls", "model", "attempts", "pause_seconds")
        folder = Path(settings["weights_folder"]).expanduser()
        if not folder.is_dir():
            raise ValueError(
                f"the servers read weights from a folder, and {folder} is none. Set rollout.weights_folder to the one "
                "that they were started with (PAPO_WEIGHTS_FOLDER)."
            )
        for server in model_servers(
            **{name: settings[name] for name in names},
            timeout_seconds=min(settings["timeout_seconds"], _PREFLIGHT_SECONDS),
        ):
            try:
                room = server.max_model_len()
            except ServerUnavailable as error:
                raise ServerUnavailable(f"{error}. {_START}") from error
            server.require_room(
                prompt_tokens=longest_prompt,
                response_tokens=settings["max_response_tokens"],
                room=room,
            )

    def greedy(self) -> "ServerRollouts":
        """Returns an engine of the same servers and weights that asks for the most likely tokens; it follows nobody."""
        engine = copy(self)
        engine.local, engine.drawing = self.local.greedy(), partial(self.drawing, top_k=1)
        return engine

    def follow(self, source: WeightSource, version: str) -> None:
        """Gives the servers the weights of a version; nothing happens where they have them. Collective.

        Raises:
            ServerUnavailable: a server is away, and `on_failure` is `stop`.
            ServerDiffers: another run uses it, or it does not take the weights.
        """
        if (full := f"{source.run}.{version}") == self._version:
            return
        with source.files(self.folder, full, most_bytes=self.part_bytes, dtype=self.dtype) as names:
            failure = source.ranks.first(lambda: self._hand_over(full, names))
        self._run, self._version = source.run, full
        self._needs_probe = True
        self._is_away = False
        if failure is not None:
            self._go_on_alone(ServerUnavailable(failure))

    def sample(
        self, groups: Sequence[PromptGroup], num_responses: int, seeds: Sequence[int]
    ) -> Responses:
        """Returns `num_responses` contiguous responses per group.

        Raises:
            ValueError: as of SharedPrefillSampler, or a prompt is too long for a server.
            ServerUnavailable: a server is away, and `on_failure` is `stop`.
            ServerDiffers: a server answers, and not as this policy would.
        """
        served = self.begin(groups, num_responses, seeds).finish()
        return served or sampled_here(self.local.sample(groups, num_responses, seeds))

    def begin(
        self, groups: Sequence[PromptGroup], num_responses: int, seeds: Sequence[int]
    ) -> Begun:
        """Asks for the responses of `sample`, and returns without waiting for them.

        The servers keep their weights until these are finished: whoever calls `follow` has waited. What
        asks the policy, the parity probe and the texts, is done here and in `finish`, by the caller's thread.

        Returns:
            What finishes with None where a server is away, and `on_failure` is `local`.

        Raises:
            ValueError, ServerUnavailable, ServerDiffers: as of `sample`; `finish` may too.
        """
        check_call(groups, num_responses, seeds)
        assert self._version is not None, "the servers are given weights before they are asked"
        asked: SideBySide[list[ServedResponse]] | None = None
        if not self._is_away:
            try:
                if self._needs_probe:
                    self._probe(groups, seeds)
                    self._needs_probe = False
                asked = self._ask(groups, seeds, self.drawing(num_responses=num_responses))
            except ServerUnavailable as error:
                self._go_on_alone(error)
        if asked is None:
            return Begun(finish=lambda: None, stop=lambda: None)
        return Begun(finish=partial(self._finish, groups, asked), stop=asked.stop)

    def _finish(
        self, groups: Sequence[PromptGroup], asked: SideBySide[list[ServedResponse]]
    ) -> Responses | None:
        try:
            return self._put_together(groups, asked.results())
        except ServerUnavailable as error:
            self._go_on_alone(error)
            return None

    def _go_on_alone(self, error: ServerUnavailable) -> None:
        if self.on_failure == "stop":
            raise error
        self._is_away = True
        _log.warning(
            "%s. The policy samples itself until its weights change (rollout.on_failure=local)",
            error,
        )

    def _hand_over(self, version: str, files: Sequence[str]) -> str | None:
        """Rank 0 tells all servers; returns why one of them is away."""
        try:
            side_by_side(
                partial(self._update, version=version, files=files),
                self.servers,
                at_once=len(self.servers),
            )
        except ServerUnavailable as error:
            return str(error)
        return None

    def _update(self, server: ModelServer, *, version: str, files: Sequence[str]) -> None:
        if self._run is not None:
            self._require_own(server, server.version())
        server.update(version, files)

    def _require_own(self, server: ModelServer, version: str) -> None:
        """Refuses a server that another run has given its weights."""
        if not version.startswith(f"{self._run}."):
            raise ServerDiffers(
                f"{server} holds weights of another run, {shown(version)}; this one is "
                f"{self._run}. Each run needs servers of its own: set rollout.urls."
            )

    def _ask(
        self, groups: Sequence[PromptGroup], seeds: Sequence[int], drawing: Drawing
    ) -> SideBySide[list[ServedResponse]]:
        """Sends every prompt; threads do no more than that and read what is answered."""
        version = self._version

        def ask(place: int) -> list[ServedResponse]:
            server, group = self.servers[place % len(self.servers)], groups[place]
            answer = server.generate(
                question(self.policy, group, seeds[place], drawing),
                most_bytes=most_bytes(group, drawing),
            )
            try:
                responses = read_answer(answer, self.policy, group, drawing)
            except ServerDiffers as error:
                raise ServerDiffers(f"{server}: {error}") from error
            for response in responses:
                self._require_version(server, response.versions, version)
            return responses

        self._require_room(groups, drawing)
        return SideBySide(ask, range(len(groups)), at_once=self.at_once)

    def _require_room(self, groups: Sequence[PromptGroup], drawing: Drawing) -> None:
        """A server cuts what does not fit into its longest row, and says nothing."""
        if self.max_model_len is None:
            self.max_model_len = min(server.max_model_len() for server in self.servers)
        self.servers[0].require_room(
            prompt_tokens=max(group.prompt_ids.shape[0] for group in groups),
            response_tokens=drawing.max_response_tokens,
            room=self.max_model_len,
        )

    def _require_version(
        self, server: ModelServer, versions: Sequence[str], asked: str | None
    ) -> None:
        for version in versions:
            self._require_own(server, version)
        if list(versions) != [asked]:
            raise ServerDiffers(
                f"{server} wrote a response with the weights {shown(list(versions))}; "
                f"expected {asked} alone"
            )

    def _probe(self, groups: Sequence[PromptGroup], seeds: Sequence[int]) -> None:
        """Compares every server with the policy.

        Raises:
            ServerDiffers: the log-probabilities of one differ by more than the tolerance.
        """
        count = max(_PROBE_PROMPTS, len(self.servers))
        chosen = [groups[place % len(groups)] for place in range(count)]
        drawing = Drawing(
            model=self.model,
            num_responses=1,
            temperature=self.local.policy.temperature,
            top_p=1.0,
            top_k=None,
            max_response_tokens=min(_PROBE_TOKENS, self.max_response_tokens),
        )
        asked = [derive_seed(seeds[0], "probe", place) for place in range(count)]
        answers = [one for [one] in self._ask(chosen, asked, drawing).results()]
        for index, server in enumerate(self.servers):
            own = slice(index, None, len(self.servers))
            parity = measure_parity(self.policy, chosen[own], answers[own])
            if not parity.largest <= self.tolerance:
                raise ServerDiffers(_differs(server, parity, self.tolerance))

    def _put_together(
        self, groups: Sequence[PromptGroup], answers: Sequence[Sequence[ServedResponse]]
    ) -> Responses:
        rows = [response for answer in answers for response in answer]
        longest = max(len(row.ids) for row in rows)
        ids = torch.tensor([[*row.ids, *[0] * (longest - len(row.ids))] for row in rows])
        logprobs = torch.tensor(
            [[*row.logprobs, *[0.0] * (longest - len(row.ids))] for row in rows]
        )
        mask = torch.arange(longest) < torch.tensor([[len(row.ids)] for row in rows])
        return Responses(
            ids=ids,
            mask=mask,
            logprobs=logprobs,
            finished=torch.tensor([row.ids[-1] in self.policy.end_token_ids for row in rows]),
            texts=self.policy.decode_responses(groups, ids, mask),
            behaviour_logprobs=logprobs,
            from_server=torch.ones(len(rows), dtype=torch.bool),
        )


def _differs(server: ModelServer, parity: Parity, tolerance: float) -> str:
    where = ", ".join(f"{kind} by up to {value:.2g}" for kind, value in parity.by_kind.items())
    return (
        f"{server} gives other log-probabilities than this policy: its weights or its "
        f"preprocessing differ. They differ in {where} nats over {parity.num_tokens} tokens, more than "
        f"rollout.tolerance={tolerance:g}. Serve the model that is trained, in the precision of the policy's passes."
    )


def _check_choice(name: str, value: str | None, allowed: Sequence[str | None]) -> None:
    if value not in allowed:
        names = ", ".join("null" if each is None else each for each in allowed)
        raise ValueError(f"rollout.{name} is one of {names}; got {value!r}")
