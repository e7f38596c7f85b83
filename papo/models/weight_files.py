"""The safetensors files of a model, read in rows: nobody needs a whole weight to have a part of it.

Keys of the files are matched with weights by transformers' own renaming, which knows how older versions of
a family named them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_BYTES_COMPARED_WHOLE = 2**16
_BYTES_AT_ONCE = 2**26


class NotInRows(Exception):
    """These files are sound, but only transformers can load them; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """Where a weight lies.

    Attributes:
        file: an open file.
        path: its path.
        key: the name of the weight in it.
    """

    file: Any
    path: Path
    key: str

    def rows(self, start: int, stop: int) -> Tensor:
        found: Tensor = self.file.get_slice(self.key)[start:stop]
        return found

    def shape(self) -> tuple[int, ...]:
        return tuple(self.file.get_slice(self.key).get_shape())

    def __str__(self) -> str:
        return f"{self.key} of {self.path}"


class WeightFiles:
    """The weights of a model as they lie in its folder.

    Args:
        model: on the meta device; says which weights there are, of which shape and type.
        folder: with model.safetensors, or several such files and their index.

    Raises:
        ValueError: a weight is missing, has another shape or no place in the model, or a file is damaged; names
            file and key.
        NotInRows: see there.
    """

    def __init__(self, model: PreTrainedModel, folder: Path) -> None:
        found = _renamed(_opened(folder), model, folder)
        expected = model.state_dict()
        for name, stored in found.items():
            if stored.shape() != tuple(expected[name].shape):
                raise ValueError(
                    f"{stored} has the shape {list(stored.shape())}, and the model of config.json has "
                    f"{list(expected[name].shape)} there. {_REMEDY}"
                )
        self._stored = _with_tied(found, model)
        self._dtypes = {name: expected[name].dtype for name in expected}
        ignored = _ignored(model, "_keys_to_ignore_on_load_missing")
        missing = [name for name in expected if name not in self._stored]
        if missing := [name for name in missing if not _matches(ignored, name)]:
            raise ValueError(f"no file of {folder} has the weight {missing[0]}. {_REMEDY}")
        if set(expected) - set(self._stored):
            raise NotInRows("some of its weights are in no file, by intention")

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Returns rows start to stop of a weight, in the type of the model.

        Args:
            name: of a parameter of the model.
            start: the first row.
            stop: behind the last one.
        """
        stored = self._stored[name]
        if start == stop:
            return torch.empty(0, *stored.shape()[1:], dtype=self._dtypes[name])
        try:
            return stored.rows(start, stop).to(self._dtypes[name])
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{stored} cannot be read: {error}. {_REMEDY}") from error

    def digest(self, pieces: int) -> str:
        """Returns a hash of all keys and types, of small weights, and of the first row of each of so many pieces.

        Who reads other rows than others sees by it, in a few megabytes, that they read the same files.
        """
        digest = hashlib.sha256()
        for name, stored in sorted(self._stored.items()):
            shape = stored.shape()
            rows = [(0, shape[0])]
            first = stored.rows(0, 1)
            if first.nbytes * shape[0] > _BYTES_COMPARED_WHOLE:
                rows = [(row, row + 1) for row in range(0, shape[0], -(-shape[0] // pieces))]
            digest.update(f"{name} {stored.key} {first.dtype} {shape}".encode())
            for start, stop in rows:
                part = stored.rows(start, stop).contiguous().flatten()
                digest.update(part.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


_REMEDY = "Restore the file, or set model.path= to a whole folder."


def _opened(folder: Path) -> list[_Stored]:
    """Everything in the files of a folder; transformers, too, prefers one file to several."""
    if (folder / ONE_FILE).is_file():
        return _contents(folder / ONE_FILE)
    if not (folder / INDEX).is_file():
        raise NotInRows(f"it has neither {ONE_FILE} nor {INDEX}")
    try:
        files: dict[str, str] = json.loads((folder / INDEX).read_text("utf-8"))["weight_map"]
        names = sorted(set(files.values()))
        if not all(name == Path(name).name for name in names):
            raise ValueError("it names a file of another folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / INDEX} is no index of weights: {error}. {_REMEDY}") from error
    found = []
    for name in names:
        if not (folder / name).is_file():
            key = min(key for key, file in files.items() if file == name)
            raise ValueError(f"{folder / name} is missing, which has {key}. {_REMEDY}")
        there = _contents(folder / name)
        lacking = {key for key, file in files.items() if file == name} - {s.key for s in there}
        if lacking:
            raise ValueError(
                f"{folder / name} lacks {min(lacking)}, which {INDEX} has in it. {_REMEDY}"
            )
        found += there
    return found


def _contents(path: Path) -> list[_Stored]:
    try:
        file: Any = safe_open(path, framework="pt")
        # A file that is cut short is refused here, not where its last weight is read.
        return [_Stored(file=file, path=path, key=key) for key in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}. {_REMEDY}") from error


def _renamed(stored: Iterable[_Stored], model: PreTrainedModel, folder: Path) -> dict[str, _Stored]:
    """What lies in the files, by the model's own names."""
    expected: dict[str, Any] = model.state_dict()
    mapping = get_model_conversion_mapping(model)
    renamings = [one for one in mapping if isinstance(one, WeightRenaming)]
    converters = [one for one in mapping if isinstance(one, WeightConverter)]
    ignored = _ignored(model, "_keys_to_ignore_on_load_unexpected")
    found: dict[str, _Stored] = {}
    for one in stored:
        name, converter = rename_source_key(
            one.key, renamings, converters, model.base_model_prefix, expected
        )
        if name not in expected and one.key in expected:
            name, converter = one.key, None
        if converter is not None:
            raise NotInRows(f"{one} is computed from what lies there, not read")
        if name in found:
            raise ValueError(f"{one} and {found[name]} are both the weight {name}. {_REMEDY}")
        if name in expected:
            found[name] = one
        elif not _matches(ignored, name):
            raise ValueError(f"{one} is no weight of the model of config.json. {_REMEDY}")
    return found


def _with_tied(found: Mapping[str, _Stored], model: PreTrainedModel) -> dict[str, _Stored]:
    """What lies in the files, under all names that its parameter has."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    result = dict(found)
    for tied in names.values():
        there = [found[name] for name in tied if name in found]
        if any(not _same(there[0], other) for other in there[1:]):
            raise NotInRows(f"{there[0]} and {there[1]} differ, which config.json ties")
        result |= {name: there[0] for name in tied if there}
    return result


def _same(one: _Stored, other: _Stored) -> bool:
    """Whether two weights of the same shape are the same."""
    num_rows = one.shape()[0]
    at_once = max(1, _BYTES_AT_ONCE // max(1, one.rows(0, 1).nbytes))
    return all(
        torch.equal(one.rows(row, row + at_once), other.rows(row, row + at_once))
        for row in range(0, num_rows, at_once)
    )


def _ignored(model: PreTrainedModel, attribute: str) -> list[str]:
    """Patterns of keys that may be missing, or be there; older files have rotary frequencies, too."""
    patterns = list(getattr(model, attribute, None) or ())
    return [*patterns, r"rotary_emb\.inv_freq"] if attribute.endswith("unexpected") else patterns


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)
