"""A checkpoint that several ranks write: a folder of safetensors files and a list of what is in them.

manifest.json   every tensor's shape and type and which rows of it lie in which file; every file's checksum
run.pt          everything else: counters, settings of the optimiser (weights_only)
shard_*         rows of the tensors, of each rank that holds a part; cut along the first dimension alone

Rows are read from whichever files hold them, so any number of ranks reads what any other wrote. Data never
runs: JSON, safetensors, and tensors and plain containers.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from papo.parallel import Ranks, shard_of
from papo.storage.files import to_disk

MANIFEST = "manifest.json"
STATE = "run.pt"
FORMAT = 1

# What is cut; all else of a checkpoint is small.
_CUT = ("state_dict", "optimizer_states")

_PLACEHOLDER = "tensor in shards"

BYTES_PER_FILE = 2**30
"""A rank's rows go to several files of about so many bytes: writing one takes as much of the host's memory."""

Where = tuple[Any, ...]
"""The keys that lead to a tensor of a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor of a checkpoint, not read yet.

    Attributes:
        shape: of the whole.
        read: returns rows start to stop.
    """

    shape: tuple[int, ...]
    read: Callable[[int, int], Tensor]

    def whole(self) -> Tensor:
        """Reads all of it."""
        return self.read(0, self.shape[0])


Place = Callable[[Where, StoredTensor], Tensor]
"""Makes of a stored tensor what its reader needs of it."""


def placed_whole(where: Where, stored: StoredTensor) -> Tensor:
    """Every tensor whole, as one process needs them."""
    return stored.whole()


def is_checkpoint_folder(path: Path) -> bool:
    """Whether a folder is a checkpoint, whole or not."""
    return any((path / name).is_file() for name in (MANIFEST, STATE))


def write_folder(
    folder: Path, checkpoint: dict[str, Any], *, ranks: Ranks, holds_first_copy: bool
) -> None:
    """Writes a checkpoint into an empty folder, each rank its part of it; forced to the disk.

    Args:
        folder: where; all ranks see it.
        checkpoint: of this rank; what is not in shards is the same on all.
        ranks: the processes of the run.
        holds_first_copy: whether this rank writes; others have the same rows.
    """
    tensors: dict[str, Tensor] = {}
    cut = [key for key in _CUT if key in checkpoint]
    rest = {**checkpoint, **{key: _taken_out(checkpoint[key], (key,), tensors) for key in cut}}
    parts: dict[str, Any] = {}
    files: dict[str, Any] = {}
    if holds_first_copy:
        parts, files = _write_parts(folder, tensors, ranks)
    everyone = ranks.gather({"parts": parts, "files": files})
    if not ranks.writes:
        return
    with (folder / STATE).open("wb") as file:
        torch.save(rest, file)
        to_disk(file)
    files = {name: facts for part in everyone for name, facts in part["files"].items()}
    files[STATE] = _facts(folder / STATE)
    listed: dict[str, Any] = {}
    for part in everyone:
        for name, entry in part["parts"].items():
            known = listed.setdefault(name, {**entry, "rows": []})
            known["rows"] += entry["rows"]
    content = {"format": FORMAT, "tensors": listed, "files": files}
    with (folder / MANIFEST).open("w", encoding="utf-8") as text:
        json.dump({**content, "sha256": _digest_of(content)}, text)
        to_disk(text)


def read_folder(
    folder: Path, place: Place = placed_whole, *, only: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """Returns the checkpoint that a folder holds.

    Args:
        folder: may be a stranger's; see `folder_damage` for whether it is whole.
        place: what to make of each tensor.
        only: keys of the checkpoint whose tensors are read; None: all.
    """
    manifest = _manifest(folder)
    checkpoint: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    for key in _CUT:
        if key in checkpoint and (only is None or key in only):
            checkpoint[key] = _put_in(checkpoint[key], (key,), folder, manifest["tensors"], place)
    return checkpoint


def placed(
    checkpoint: dict[str, Any], place: Place, *, only: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """Returns a checkpoint that was one file with its tensors placed as those of a folder are."""

    def of(value: Any, where: Where) -> Any:
        if isinstance(value, Tensor) and value.ndim:
            stored = StoredTensor(
                shape=tuple(value.shape), read=lambda start, stop: value[start:stop]
            )
            return place(where, stored)
        return _mapped(value, where, of)

    keys = [key for key in _CUT if key in checkpoint and (only is None or key in only)]
    return {**checkpoint, **{key: of(checkpoint[key], (key,)) for key in keys}}


def folder_damage(folder: Path) -> str | None:
    """Reads a folder once, in pieces, and compares every file with its checksum; returns what is wrong."""
    try:
        manifest = _manifest(folder)
        for name, facts in manifest["files"].items():
            path = folder / _plain(name)
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != facts["bytes"]:
                return f"{name} has {path.stat().st_size} bytes of {facts['bytes']}"
            if _digest(path) != facts["sha256"]:
                return f"{name} does not have the checksum it was written with"
        torch.load(folder / STATE, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # Hostile text raises more than ValueError.
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return None


def remove(path: Path) -> None:
    """Deletes a checkpoint, file or folder; half-deleted it is not taken for one."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    # A name that nothing reads, and that the next start cleans up.
    doomed = path.with_name(path.name + ".deleted.unfinished")
    shutil.rmtree(doomed, ignore_errors=True)
    shutil.rmtree(path.rename(doomed))


def _taken_out(value: Any, where: Where, tensors: dict[str, Tensor]) -> Any:
    """The value with placeholders for its tensors, which are added to `tensors`."""

    def of(value: Any, where: Where) -> Any:
        if isinstance(value, Tensor) and value.ndim:
            name = "/".join(map(str, where))
            tensors[name] = value
            return {_PLACEHOLDER: name}
        return _mapped(value, where, of)

    return of(value, where)


def _put_in(
    value: Any, where: Where, folder: Path, tensors: Mapping[str, Any], place: Place
) -> Any:
    def of(value: Any, where: Where) -> Any:
        if isinstance(value, dict) and set(value) == {_PLACEHOLDER}:
            return place(where, _stored(folder, tensors, value[_PLACEHOLDER]))
        return _mapped(value, where, of)

    return of(value, where)


def _mapped(value: Any, where: Where, of: Callable[[Any, Where], Any]) -> Any:
    if isinstance(value, dict):
        return {key: of(item, (*where, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(of(item, (*where, index)) for index, item in enumerate(value))
    return value


def _write_parts(
    folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes this rank's rows; returns entries of the manifest for its tensors and files."""
    parts: dict[str, Any] = {}
    rows: dict[str, Tensor] = {}
    stored: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        shard = shard_of(tensor)
        local = tensor.detach() if shard is None else shard.local
        # Tied weights have several names and lie there once.
        key = (local.untyped_storage().data_ptr(), local.storage_offset(), tuple(local.shape))
        stored_as = stored.setdefault(key, name) if local.numel() else name
        entry = {
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "rows": [],
        }
        parts[name] = entry
        # What every rank has whole, the first one writes.
        if local.shape[0] and (shard is not None or ranks.writes):
            start = 0 if shard is None else shard.start
            entry["rows"] = [[start, start + local.shape[0], "", stored_as]]
            if stored_as == name:
                rows[name] = local
    files: dict[str, Any] = {}
    file_of: dict[str, str] = {}
    for number, piece in enumerate(_pieces(rows)):
        name = f"shard_{ranks.rank:04d}_{number:03d}.safetensors"
        save_file({key: value.cpu().contiguous() for key, value in piece.items()}, folder / name)
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
        files[name] = _facts(folder / name)
        file_of.update(dict.fromkeys(piece, name))
    for entry in parts.values():
        for row in entry["rows"]:
            row[2] = file_of[row[3]]
    return parts, files


def _pieces(rows: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    piece: dict[str, Tensor] = {}
    size = 0
    for name, tensor in rows.items():
        if piece and size + tensor.nbytes > BYTES_PER_FILE:
            yield piece
            piece, size = {}, 0
        piece[name] = tensor
        size += tensor.nbytes
    if piece:
        yield piece


def _stored(folder: Path, tensors: Mapping[str, Any], name: str) -> StoredTensor:
    entry = tensors[name]
    shape = tuple(map(int, entry["shape"]))

    def read(start: int, stop: int) -> Tensor:
        found = []
        for first, last, file, key in sorted(entry["rows"]):
            low, high = max(first, start), min(last, stop)
            if low < high:
                with safe_open(folder / _plain(file), framework="pt") as archive:
                    found.append(archive.get_slice(key)[low - first : high - first])
        if not found:
            return torch.empty(0, *shape[1:], dtype=_DTYPES[entry["dtype"]])
        rows = torch.cat(found) if len(found) > 1 else found[0]
        if rows.shape != (stop - start, *shape[1:]):
            raise ValueError(
                f"{folder} has {tuple(rows.shape)} of rows {start} to {stop} of {name}"
            )
        return rows

    return StoredTensor(shape=shape, read=read)


_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


def _manifest(folder: Path) -> dict[str, Any]:
    """Raises ValueError where it is not the one that was written."""
    try:
        content: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{MANIFEST} is no JSON any more") from error
    digest = content.pop("sha256", None)
    if digest != _digest_of(content):
        raise ValueError(f"{MANIFEST} does not have the checksum it was written with")
    if content["format"] != FORMAT:
        raise ValueError(
            f"{MANIFEST} has format {content['format']}, and this version reads {FORMAT}"
        )
    return content


def _plain(name: str) -> str:
    """A file of the folder itself, wherever a manifest wants to lead.

    Raises:
        ValueError: it is none.
    """
    if name != Path(name).name or name in ("", ".", ".."):
        raise ValueError(f"a file of a checkpoint lies in its folder; got {name!r}")
    return name


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
