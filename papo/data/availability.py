"""Is the data there? Answered within seconds, before a model is loaded or a file downloaded."""

import re
from collections.abc import Sequence
from pathlib import Path

from papo.storage.files import read_object
from papo.storage.hub import check_hub_answers
from papo.types import key_in, shown

FILE_KINDS = (".parquet", ".arrow", ".jsonl", ".json", ".csv")
"""Files that hold a table."""


def find_files(path: Path, split: str, *, section: str = "data") -> tuple[Path, ...]:
    """Returns the files that hold a split: `path` itself, or those named after the split in it.

    A folder may hold SPLIT.parquet, SPLIT-*.parquet (also below data/, as on the hub), SPLIT.jsonl, .json or .csv; be
    what `save_to_disk` wrote of one split or of several; or be an ImageFolder: SPLIT/metadata.csv, .jsonl or .parquet,
    which stands at its top where the only split is `train`. Files that say how many they are
    (SPLIT-00000-of-00003.parquet) are there all of them.

    Args:
        path: a folder or a file.
        split: name of the split.
        section: see `key_in`.

    Raises:
        ValueError: there is no such file, or one of several is missing.
    """
    path_key = key_in(section, "path")
    if path.is_file():
        if path.suffix not in FILE_KINDS:
            raise ValueError(
                f"{path_key}={path} is neither a folder nor a file of a known kind ({', '.join(FILE_KINDS)})"
            )
        return (path,)
    if not path.is_dir():
        raise ValueError(
            f"no such folder or file: {path_key}={path} (from {Path.cwd()}). "
            f"Point {path_key}= at the data set, or drop it to load from the hub."
        )
    for pattern in (
        *(f"{split}.parquet", f"{split}-*.parquet", f"data/{split}-*.parquet"),
        *(f"{split}.jsonl", f"{split}.json", f"{split}.csv"),
    ):
        if files := _files(path, pattern):
            return _all_shards(files, split, path_key)
    for folder in (path / split, path):
        if (folder / "state.json").is_file():
            return saved_files(folder)
    for folder in (path / split, *([path] if split == "train" else [])):
        for kind in ("csv", "jsonl", "parquet"):
            if files := _files(folder, f"metadata.{kind}"):
                return files
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:10]) or "nothing"
    raise ValueError(
        f"{path_key}={path} holds no split {split!r}: looked for {split}.parquet, {split}-*.parquet, "
        f"data/{split}-*.parquet, {split}.jsonl, {split}.json, {split}.csv, what save_to_disk writes, and "
        f"{split}/metadata.csv, .jsonl or .parquet; found {shown(found, 300)}. "
        f"Set {key_in(section, 'split')}= or point {path_key}= at the file itself."
    )


def _files(folder: Path, pattern: str) -> tuple[Path, ...]:
    # A fifo of that name would be waited for.
    return tuple(sorted(file for file in folder.glob(pattern) if file.is_file()))


def saved_files(folder: Path) -> tuple[Path, ...]:
    """Returns the Arrow files that `Dataset.save_to_disk` wrote, in their order.

    Raises:
        ValueError: its state is damaged, or one of the files is missing.
    """
    state = read_object(folder / "state.json", remedy="Save the data set anew.")
    try:
        names = [str(one["filename"]) for one in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'state.json'} is not what save_to_disk writes: it names no files"
        ) from error
    # A name, and no path: the state is a stranger's.
    files = tuple(folder / name for name in names if name == Path(name).name)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or len(files) < len(names) or not files:
        raise ValueError(
            f"{folder} was saved as {len(names)} files and lacks {len(missing)}: "
            f"{shown(', '.join(missing or names), 300)}. Save the data set anew."
        )
    return files


def _all_shards(files: Sequence[Path], split: str, path_key: str) -> tuple[Path, ...]:
    """Returns the files in their order, refusing a split of which a part is missing."""
    numbered = {
        file: (int(match[1]), int(match[2]))
        for file in files
        if (match := re.fullmatch(re.escape(split) + r"-(\d+)-of-(\d+)\.parquet", file.name))
    }
    if not numbered:
        return tuple(files)
    totals = sorted({total for _, total in numbered.values()})
    if len(totals) > 1:
        raise ValueError(
            f"{files[0].parent} holds the split {split!r} cut into {' and into '.join(map(str, totals))} "
            f"files: {', '.join(file.name for file in numbered)}. Remove those of the older download."
        )
    here = {number for number, _ in numbered.values()}
    first = 1 if totals[0] in here else 0  # some count from 1
    missing = [number for number in range(first, first + totals[0]) if number not in here]
    if missing:
        names = [f"{split}-{number:05d}-of-{totals[0]:05d}.parquet" for number in missing[:5]]
        raise ValueError(
            f"{files[0].parent} holds {len(here)} of the {totals[0]} files of the split {split!r}; missing: "
            f"{', '.join(names)}{' and more' if len(missing) > 5 else ''}. Complete the download, or "
            f"point {path_key}= at one file to read it alone."
        )
    return tuple(numbered)


def check_hub(hub_id: str, *, revision: str | None, section: str = "data") -> None:
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
        remedy=f"Point {key_in(section, 'path')}=FOLDER at a local copy of {hub_id} (parquet or JSON lines), "
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
