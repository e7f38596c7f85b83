"""The policy: reads prompts, samples nothing, scores everything (sampling is papo.rollout).

The unit of work is a group: each image and each prompt is computed once per view for all G
responses. papo.models.scoring has the ways to do that, and the plain way they must equal.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL.Image import Image
from torch import Tensor
from transformers import PreTrainedModel

from papo.functional import HeadPrecision, TokenStatistics, soft_capped, token_statistics
from papo.models.families import FamilyAdapter, family_of
from papo.models.hidden_states import HIDDEN_QUANTITIES, ImageCosines
from papo.models.measure import measured, views_to_read
from papo.models.policy_weights import PolicyWeights
from papo.models.prompt_encoder import PromptEncoder
from papo.models.reader import Prefix, PromptReader
from papo.models.response_rows import at_tokens, check_rows, read_together, shown_in
from papo.models.scoring import BACKENDS, BackendChoice
from papo.models.vision_cache import VisionFeatureCache
from papo.types import IMAGE, PictureLayout, Problem, PromptGroup, Quantity, TokenScores, ViewScores


class VisionLanguagePolicy(PolicyWeights):
    """A vision-language model that encodes problems and scores responses (the Policy Protocol).

    Args:
        model: the Hugging Face model; its parameters are the policy's.
        encoder: renders prompts and processes images.
        temperature: logits are divided by it, in scoring as in sampling.
        scoring: `split`, `merged`, `flex` (on a GPU) or `twopass` (the prefix is computed once per
            group), `padded` (the oracle), or `auto`: split, on a GPU merged, but padded where sharing saves
            less than a tenth of the operations.
        head_chunk_size: response tokens per chunk of the vocabulary head; bounds its memory.
        gradient_checkpointing: recompute activations in backward; not with `twopass`. `auto` keeps them unless
            `recompute_activations` is called, by one who has counted memory.
        freeze_vision: leave the vision tower as it is; its features are then computed once per tensor
            of patches, and a copy of the policy shares them.
        adapter: reads prompts with the model; a class of one's own derives from that of the family. None: that one.

    Raises:
        ValueError: an unsupported model family, a temperature that is not finite and above 0, or an impossible `scoring`.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        encoder: PromptEncoder,
        temperature: float,
        scoring: str,
        head_chunk_size: int,
        gradient_checkpointing: bool | Literal["auto"],
        freeze_vision: bool,
        adapter: Callable[[PreTrainedModel], FamilyAdapter] | None = None,
    ) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise ValueError(
                f"sampling needs a finite temperature above 0; got {temperature}. Set rollout.temperature."
            )
        self.model = model
        self.adapter = (adapter or family_of(model.config).adapter)(model)
        self.freeze_vision = freeze_vision
        cache = None
        if freeze_vision:
            for module in self.adapter.vision_modules:
                module.requires_grad_(False)
            cache = VisionFeatureCache(self.adapter.vision_modules)
        self.reader = PromptReader(self.adapter, cache, encoder.pixel_levels)
        self.choose_backend = BackendChoice(scoring=scoring, config=model.config)
        self.encoder = encoder
        self.temperature = temperature
        self.head_chunk_size = head_chunk_size
        self.gradient_checkpointing = False
        self._banned: Tensor | None = None
        if gradient_checkpointing is True:
            self.recompute_activations()
        self.unread_weights = None
        self.model.eval()

    pass_methods = ("score", "measure", "prefill", "extend", "next_token_logprobs")
    """What reads weights, and is called from outside."""

    def recompute_activations(self) -> None:
        """Has passes with gradient compute activations again in backward, instead of keeping them.

        Raises:
            ValueError: scoring is `twopass`.
        """
        if self.choose_backend.scoring == "twopass":
            raise ValueError(
                "two-pass scoring needs a cache, which gradient checkpointing drops. Set "
                "model.scoring=split (or auto), or model.gradient_checkpointing=false."
            )
        self.model.activation_checkpointing_enable({"use_reentrant": False})
        self.gradient_checkpointing = True

    def __deepcopy__(self, memo: dict[int, object]) -> "VisionLanguagePolicy":
        # The adapter must point at the copied model, and the encoder holds nothing to copy. A frozen
        # tower is the same in both, so the copy shares it and the features it has computed.
        if self.freeze_vision:
            memo.update((id(module), module) for module in self.adapter.vision_modules)
        copied = VisionLanguagePolicy(
            model=deepcopy(self.model, memo),
            encoder=self.encoder,
            temperature=self.temperature,
            scoring=self.choose_backend.scoring,
            head_chunk_size=self.head_chunk_size,
            gradient_checkpointing=self.gradient_checkpointing,
            freeze_vision=self.freeze_vision,
            adapter=type(self.adapter),
        )
        copied.reader.vision_cache = self.reader.vision_cache
        # They are asked about the same batches: what is chosen is said once.
        copied.choose_backend = self.choose_backend
        return copied

    @property
    def shares_prefix(self) -> bool:
        """Whether scoring reads each prompt once for all its responses, wherever that saves a lot."""
        return self.choose_backend.shares_prefix

    @property
    def banned_token_ids(self) -> tuple[int, ...]:
        """Tokens the policy never writes: excluded from sampling and from every distribution."""
        return self.adapter.vision_token_ids

    @property
    def can_be_served(self) -> bool:
        """Whether a rollout server reads a picture that it is sent as this policy reads it."""
        return self.encoder.family_pictures.served

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Tokens that end a response."""
        ids = self.model.generation_config.eos_token_id
        ids = [ids] if isinstance(ids, int) else list(ids or [])
        ids.append(self.encoder.tokenizer.eos_token_id)
        return tuple(sorted({int(i) for i in ids if i is not None}))

    def encode(self, problems: Sequence[Problem]) -> tuple[PromptGroup, ...]:
        """Tokenises each prompt and processes each image once; tensors stay on the CPU.

        Raises:
            ValueError: a problem whose `<image>` markers do not match its images.
        """
        return tuple(self._encode_one(problem) for problem in problems)

    def _encode_one(self, problem: Problem) -> PromptGroup:
        rendered = self.encoder.render(problem)
        patches, pictures = None, tuple[PictureLayout, ...]()
        if problem.images:
            patches, pictures = self.encoder.process_images(problem.images)
        prompt_ids = self.encoder.tokenize(problem, rendered, pictures)
        positions, next_position = self.adapter.positions(prompt_ids, pictures)
        return PromptGroup(
            problem=problem,
            prompt_ids=prompt_ids,
            position_ids=positions,
            next_position=next_position,
            patches=patches,
            pictures=pictures,
        )

    def packed(self, group: PromptGroup) -> PromptGroup:
        """The group with its patches in a quarter of the memory, for `score` and `pictures` the same bits."""
        pack = self.encoder.pixel_levels.pack
        if group.patches is None:
            return group
        views = {name: tuple(map(self.packed, shown)) for name, shown in group.views.items()}
        return replace(group, patches=pack(group.patches), views=views)

    def process_images(self, images: Sequence[Image]) -> Float[Tensor, "patch pixel"]:
        """Normalised patches of pictures, for masks that act on the raw picture."""
        return self.encoder.process_images(images)[0]

    def pictures(
        self,
        patches: Float[Tensor, "patch pixel"] | UInt8[Tensor, "patch pixel"],
        pictures: Sequence[PictureLayout],
    ) -> tuple[Image, ...]:
        """What the vision tower sees, as pictures."""
        return self.encoder.pictures(patches, pictures)

    def prompt_length(self, problem: Problem) -> int:
        """Exact number of prompt tokens of a problem, without processing its images."""
        return self.encoder.prompt_length(problem)

    def decode_responses(
        self,
        groups: Sequence[PromptGroup],
        ids: Int[Tensor, "rollout token"],
        mask: Bool[Tensor, "rollout token"],
    ) -> tuple[str, ...]:
        """The responses as text, special tokens removed.

        Where the chat template already opened the thought (`<think>`), the text starts with it:
        graders and format rules see the whole response.
        """
        num_responses = ids.shape[0] // len(groups)
        prefixes = [
            self.encoder.response_prefix(self.encoder.render(group.problem)) for group in groups
        ]
        return tuple(
            prefixes[row // num_responses] + self.encoder.text_of(ids[row][mask[row]].tolist())
            for row in range(ids.shape[0])
        )

    def score(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        *,
        views: Sequence[str] = (IMAGE,),
        full_vocabulary: bool = False,
    ) -> TokenScores:
        """Scores the G contiguous responses of each group: one pass for each view.

        A text-only prompt is the same in every view that nothing has made for it.

        Args:
            groups: the prompts.
            response_ids: G rows for each.
            response_mask: True where the policy sampled the token.
            views: by their names; `image` is the unchanged prompt.
            full_vocabulary: also entropies and, where the image is among the views, the KL from it.

        Returns:
            Nats, 0.0 at padding, with gradient where grad mode is on.

        Raises:
            ValueError: the rows are not whole groups, a response has a gap, or a view was asked for that
                nothing has made.
        """
        check_rows(groups, response_mask)
        num_responses = response_ids.shape[0] // len(groups)
        hidden = {
            view: self._response_hidden(
                shown_in(view, groups, num_responses), response_ids, response_mask
            )
            for view in views
        }

        def padded(values: Any) -> Any:
            return None if values is None else at_tokens(values, response_mask)

        scores: dict[str, ViewScores] = {}
        for view, other in read_together(views, full_vocabulary=full_vocabulary):
            of = self._statistics(
                hidden[view],
                None if other is None else hidden[other],
                response_ids,
                response_mask,
                full_vocabulary,
            )
            if view not in scores:
                scores[view] = ViewScores(logprobs=padded(of.logprobs), entropy=padded(of.entropy))
            if other is not None:
                scores[other] = ViewScores(
                    logprobs=padded(of.masked_logprobs),
                    entropy=padded(of.masked_entropy),
                    kl_from_image=padded(of.perception_kl),
                )
        return scores

    def measure(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        *,
        wanted: Collection[tuple[str, Quantity]],
    ) -> TokenScores:
        """What credits read of responses: one pass for each view, and one of the image to compare with.

        Args:
            groups: as of `score`.
            response_ids: the same.
            response_mask: the same.
            wanted: (view, quantity), any quantity of ViewScores.

        Returns:
            Nats, or cosines, 0.0 at padding, without gradient.

        Raises:
            ValueError: as of `score`.
        """
        check_rows(groups, response_mask)
        num_responses = response_ids.shape[0] // len(groups)
        hidden: dict[str, Tensor] = {}
        of_states: dict[str, dict[Quantity, Tensor]] = {}
        for view in views_to_read(wanted):
            quantities = [q for v, q in wanted if v == view and q in HIDDEN_QUANTITIES]
            hidden[view], of_states[view] = self._watched_hidden(
                shown_in(view, groups, num_responses), response_ids, response_mask, quantities
            )
        response_mask = response_mask.to(self.device)
        return measured(
            hidden,
            of_states,
            response_ids.to(self.device)[response_mask],
            response_mask,
            wanted=wanted,
            next_token_logprobs=self.next_token_logprobs,
            chunk_size=self.head_chunk_size,
        )

    def remembering_nothing(self) -> AbstractContextManager[None]:
        """A context whose passes leave no feature behind: pictures are then read together with others than theirs,
        which would change the last bits of later passes."""
        return self.reader.remembering_nothing()

    def prefill(self, groups: Sequence[PromptGroup]) -> Prefix:
        """Reads each prompt once: one row per group, right-padded to the longest.

        Raises:
            ValueError: a counterfactual view, which is scored and not sampled from: what it replaces in a prompt
                depends on the whole response.
        """
        if any(group.salient_above is not None for group in groups):
            raise ValueError(
                "responses are not sampled from a counterfactual view: what it replaces in a prompt depends on the "
                "whole response. Use it in objective.views alone."
            )
        return self.reader.prefill(groups)

    def extend(
        self,
        prefix: Prefix,
        token_ids: Int[Tensor, "row token"],
        token_mask: Bool[Tensor, "row token"],
    ) -> Float[Tensor, "row token hidden"]:
        """Reads further tokens on top of a prefix, which moves on in place; returns their hidden states."""
        return self.reader.extend(prefix, token_ids, token_mask)

    def decoding(self, *, static: bool | None) -> AbstractContextManager[None]:
        """A context in which weights do not change and many tokens are read one by one.

        Under autocast the matrices of the language model and of the head are held in its precision, instead
        of being cast for every token, and are gone afterwards.

        Args:
            static: as of DecodeStep; None: on a GPU.
        """
        return self.reader.decode_many(self.device.type == "cuda" if static is None else static)

    def next_token_logprobs(
        self, hidden: Float[Tensor, "row hidden"]
    ) -> Float[Tensor, "row vocab"]:
        """log pi(. | prefix): temperature applied, banned tokens at -inf, float32 or wider.

        Multiplied and added in the precision in which `score` does.
        """
        precision = HeadPrecision.of(hidden, self.adapter.head_weight)
        with torch.autocast(hidden.device.type, enabled=False):
            logits = self.reader.head_logits(hidden, precision)
        soft_capped(logits, self.adapter.logit_softcap)
        if self.temperature != 1.0:
            logits /= self.temperature
        logits.index_fill_(1, self._banned_ids(hidden.device), -torch.inf)
        return logits.log_softmax(dim=-1)

    def _banned_ids(self, device: torch.device) -> Int[Tensor, " banned"]:
        """Once per device: a tensor made of numbers waits for the device."""
        if self._banned is None or self._banned.device != device:
            # A pass with gradient may keep what one in inference mode has made.
            with torch.inference_mode(False):
                self._banned = torch.tensor(self.banned_token_ids, device=device)
        return self._banned

    @torch.no_grad()
    def _watched_hidden(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        quantities: Collection[Quantity],
    ) -> tuple[Float[Tensor, "row hidden"], dict[Quantity, Tensor]]:
        """As `_response_hidden`, with quantities of the states of the response tokens themselves."""
        if not quantities:
            return self._response_hidden(groups, response_ids, response_mask), {}
        # A further token behind every response, which nothing reads, has its last one read.
        longer = torch.cat([response_mask[:, :1], response_mask], dim=1)
        watch = ImageCosines(quantities)
        with watch.watching(self.adapter.language_model):
            hidden = self._response_hidden(
                groups, torch.cat([response_ids, response_ids[:, -1:]], dim=1), longer, watch=watch
            )
        predicts = torch.cat([response_mask, torch.zeros_like(response_mask[:, :1])], dim=1)
        return hidden[predicts[longer].to(hidden.device)], watch.found

    def _response_hidden(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        *,
        watch: ImageCosines | None = None,
    ) -> Float[Tensor, "row hidden"]:
        """Hidden states that predict the response tokens, without padding, in row-major order."""
        backend = BACKENDS[self.choose_backend(groups, response_mask, self.reader)]
        recomputes = self.gradient_checkpointing and torch.is_grad_enabled()
        self.model.train(recomputes)  # transformers checkpoints in training mode only
        try:
            return backend(
                self.reader,
                groups,
                response_ids.to(self.device),
                response_mask.to(self.device),
                watch=watch,
            )
        finally:
            self.model.eval()

    def _statistics(
        self,
        hidden: Float[Tensor, "row hidden"],
        masked_hidden: Float[Tensor, "row hidden"] | None,
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        full_vocabulary: bool,
    ) -> TokenStatistics:
        return token_statistics(
            hidden,
            self.adapter.head_weight,
            response_ids.to(self.device)[response_mask.to(self.device)],
            temperature=self.temperature,
            banned_ids=self._banned_ids(self.device),
            full_vocabulary=full_vocabulary,
            chunk_size=self.head_chunk_size,
            masked_hidden=masked_hidden,
            softcap=self.adapter.logit_softcap,
        )
