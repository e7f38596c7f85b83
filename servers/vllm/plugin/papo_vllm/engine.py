"""The weight transfer engine that vLLM's /start_weight_update, /update_weights and /finish_weight_update drive.

Nothing of the model changes before all parts of an update are there and fit it, so an update that is
refused leaves the server with the weights and the version that it had.
"""

import os
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from papo_vllm.parts import WeightUpdate

FOLDER_VARIABLE = "PAPO_WEIGHTS_FOLDER"


@dataclass
class FolderInit(WeightTransferInitInfo):
    """What /init_weight_transfer_engine may say.

    Attributes:
        folder: where the trainer writes, if it sees the same paths; the server compares it with its own.
    """

    folder: str | None = None


@dataclass
class FolderPart(WeightTransferUpdateInfo):
    """What /update_weights says: the name of a file in the folder."""

    name: str = ""


class FolderEngine(WeightTransferEngine[FolderInit, FolderPart]):
    """Loads updates from the folder that the server was started with.

    Raises:
        ValueError: the server was started without a folder.
    """

    init_info_cls = FolderInit
    update_info_cls = FolderPart
    supports_draft_weight_update = False

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        folder = Path(os.environ.get(FOLDER_VARIABLE) or "/nowhere")
        if not folder.is_absolute() or not folder.is_dir():
            raise ValueError(
                f"weights come from one folder, named when the server starts; got {FOLDER_VARIABLE}="
                f"{os.environ.get(FOLDER_VARIABLE, '')!r}. Set it to the absolute path of a folder."
            )
        self.folder = folder.resolve()
        self.shapes: dict[str, tuple[int, ...]] | None = None
        self.update: WeightUpdate | None = None
        self.broken = ""

    def init_transfer_engine(self, init_info: FolderInit) -> None:
        """Needed by nothing: a trainer may ask here whether both mean the same folder."""
        if init_info.folder is not None and Path(init_info.folder).resolve() != self.folder:
            raise ValueError(
                f"this server reads weights from {self.folder}, fixed when it started; got "
                f"{init_info.folder[:200]!r}"
            )

    def start_weight_update(self) -> None:
        if self.broken:
            raise RuntimeError(f"the weights are broken, restart the server: {self.broken}")
        if self.shapes is None:
            self.shapes = checkpoint_shapes(self.model_config.hf_config)
        self.update = WeightUpdate(self.folder, self.shapes)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # The base class waits for an accelerator here, which a CPU does not have; nothing is copied yet.
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: FolderPart) -> None:
        assert self.update is not None, "the worker calls start_weight_update first"
        self.update.add(update_info.name)

    def finish_weight_update(self) -> None:
        assert self.update is not None, "the worker calls start_weight_update first"
        self.update.require_whole()
        try:
            load(self.model, self.model_config, self.update)
        except BaseException as error:
            self._stop_serving(f"{type(error).__name__}: {error}")
            raise
        if self.device.type != "cpu":
            torch.accelerator.synchronize()
        self.update = None

    def shutdown(self) -> None:
        self.update = None

    def _stop_serving(self, reason: str) -> None:
        """Ends the server at its next token: half of the weights may be new, and no version would say so."""
        self.broken = reason

        def refuse(*args: Any, **keywords: Any) -> NoReturn:
            raise RuntimeError(f"an update of the weights failed half-way: {reason}")

        self.model.compute_logits = refuse


def checkpoint_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """The weights of a model by their names in a checkpoint; a tied head is not among them."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(deepcopy(config))
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def load(model: torch.nn.Module, model_config: Any, update: WeightUpdate) -> None:
    """Loads a whole update.

    Raises:
        RuntimeError: a parameter of the model was not filled.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.model_executor.model_loader.reload import (
        finalize_layerwise_reload,
        initialize_layerwise_reload,
    )

    initialize_layerwise_reload(model)
    loaded = set(model.load_weights(update.tensors()))
    if "lm_head.weight" not in update.shapes:
        # A tied head shares the storage of the embeddings, but on a CPU it computes with a packed copy of its own.
        embeddings = update.tensor(
            next(n for n in update.names if n.endswith("embed_tokens.weight"))
        )
        for name, head in model.named_modules():
            if isinstance(head, ParallelLMHead):
                head.weight.weight_loader(head.weight, embeddings)
                loaded.add(f"{name}.weight")
    finalize_layerwise_reload(model, model_config)
    missing = sorted({name for name, _ in model.named_parameters()} - loaded)
    if missing:
        raise RuntimeError(f"{len(missing)} parameters were not loaded: {', '.join(missing[:5])}")
