"""A vLLM plug-in: weights from a folder (`--weight-transfer-config '{"backend": "papo_folder"}'`)."""

BACKEND = "papo_folder"


def register() -> None:
    """Called by vLLM in each of its processes; some of them call it twice."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, "papo_vllm.engine", "FolderEngine")
