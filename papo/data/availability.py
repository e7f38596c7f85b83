"""Is the data there? Answered within seconds, before a model is loaded or a file downloaded."""

import re
from collections.abc import Sequence
from pathlib import Path

from papo.hub import check_hub_answers
from papo.types import key_in, shown


def find_files(path: Path, split: str, *, section: str = "data") -> tuple[Path, ...]:
    """Returns the files that hold a split: `path` itself, or those named after the split in it.

    A folder may hold SPLIT.parquet, SPLIT-*.parquet (also below data/, as on the hub) or SPLIT.jsonl.
    Files that say how many they are (SPLIT-00000-of-00003.parquet) are there all of them.

    Args:
        path: a folder or a file.
        split: name of the split.
        section: see `key_in`.

    Raises:
        ValueError: there is no such file, or one of several is missing.
    """
    path_key = key_in(section, "path")
    if path.is_file():
        if path.suffix not in (".parquet", ".jsonl"):
            raise ValueError(f"{path_key}={path} is neither a folder nor a .parquet or .jsonl file")
        return (path,)
    if not path.is_dir():
        raise ValueError(
            f"no such folder or file: {path_key}={path} (from {Path.cwd()}). "
            f"Point {path_key}= at the data set, or drop it to load from the hub."
        )
    for pattern in (
        f"{split}.parquet",
        f"{split}-*.parquet",
        f"data/{split}-*.parquet",
        f"{split}.jsonl",
    ):
        # A fifo of that name would be waited for.
        if files := tuple(sorted(file for file in path.glob(pattern) if file.is_file())):
            return _all_shards(files, split, path_key)
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:10]) or "nothing"
    raise ValueError(
        f"{path_key}={path} holds no split {split!r}: looked for {split}.parquet, {split}-*.parquet, "
        f"data/{split}-*.parquet and {split}.jsonl; found {shown(found, 300)}. "
        f"Set {key_in(section, 'split')}= or point {path_key}= at the file itself."
    )


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
