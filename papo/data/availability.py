"""Is the data there? Answered within seconds, before a model is loaded or a file downloaded."""

from pathlib import Path

from papo.hub import check_hub_answers


def find_files(path: Path, split: str) -> tuple[Path, ...]:
    """Returns the files that hold a split: `path` itself, or those named after the split in it.

    A folder may hold SPLIT.parquet, SPLIT-*.parquet (also below data/, as on the hub) or SPLIT.jsonl.

    Raises:
        ValueError: there is no such file.
    """
    if path.is_file():
        if path.suffix not in (".parquet", ".jsonl"):
            raise ValueError(f"data.path={path} is neither a folder nor a .parquet or .jsonl file")
        return (path,)
    if not path.is_dir():
        raise ValueError(
            f"no such folder or file: data.path={path} (from {Path.cwd()}). "
            "Point data.path= at the data set, or drop it to load from the hub."
        )
    for pattern in (
        f"{split}.parquet",
        f"{split}-*.parquet",
        f"data/{split}-*.parquet",
        f"{split}.jsonl",
    ):
        if files := tuple(sorted(path.glob(pattern))):
            return files
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:10]) or "nothing"
    raise ValueError(
        f"data.path={path} holds no split {split!r}: looked for {split}.parquet, {split}-*.parquet, "
        f"data/{split}-*.parquet and {split}.jsonl; found {found}. "
        "Set data.split= or point data.path= at the file itself."
    )


def check_hub(hub_id: str, *, revision: str | None) -> None:
    """Returns when the data set is in the local cache or the hub answers for it.

    Raises:
        FileNotFoundError: neither; the message names the data set and the override that helps.
    """
    if _is_cached(hub_id):
        return
    check_hub_answers(
        hub_id,
        kind="dataset",
        revision=revision,
        remedy=f"Point data.path=FOLDER at a local copy of {hub_id} (parquet or JSON lines), "
        "or run once where the hub can be reached to fill the cache.",
    )


def _is_cached(hub_id: str) -> bool:
    from datasets import config
    from datasets.naming import camelcase_to_snakecase
    from huggingface_hub import constants

    *namespace, name = hub_id.split("/")
    prepared = "___".join([*namespace, camelcase_to_snakecase(name)])
    downloaded = f"datasets--{hub_id.replace('/', '--')}"
    return (Path(config.HF_DATASETS_CACHE) / prepared).is_dir() or (
        Path(constants.HF_HUB_CACHE) / downloaded / "snapshots"
    ).is_dir()
