"""Whether a folder holds everything a Hugging Face policy is made of, told from its file names."""

from pathlib import Path

_PARTS = {
    "image processor": ("preprocessor_config.json", "processor_config.json"),
    "tokenizer": ("tokenizer.json", "vocab.json"),
    "weights": ("model.safetensors", "model.safetensors.index.json"),
}


def check_hugging_face_folder(folder: Path, *, key: str) -> None:
    """Returns where a folder is complete; reads no weights.

    Args:
        folder: to look into.
        key: of the configuration that named it, for the message.

    Raises:
        FileNotFoundError: something is missing; names the file and how to get it.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{key}={folder} is neither a training run (config.yaml and checkpoints/) nor a Hugging Face "
            "folder (config.json). Set checkpoint= to one of these, or to a file under RUN_DIR/checkpoints/."
        )
    for part, names in _PARTS.items():
        if not any((folder / name).is_file() for name in names):
            raise FileNotFoundError(
                f"{key}={folder} has no {part}: {names[0]} is missing. Copy it from the model the "
                "policy was trained from, or write the whole folder with scripts/export_policy.py RUN_DIR "
                "FOLDER."
            )
