"""Which problems are usable is remembered, so that a second run opens no picture.

An outcome is found by what it depends on: the contents of the files of the table, name, size and time of the pictures
beside it, the settings of the data, and what prompts are made with. It is a file of its own in a folder that any
number of runs may share; one that is damaged is made anew.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FORM = 1
"""Of the files; raised whenever another set of problems would be usable."""


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """A folder of outcomes, and what they depend on beside the data.

    Attributes:
        folder: made when the first is written.
        prompts: what decides how long a prompt is beside its problem: `PromptEncoder.identity`.
        noted: what the caller notes of each problem while its prompt is measured; kept, and filled from what was kept.
        as_noted: makes a note of its plain values again.
    """

    folder: Path
    prompts: str
    noted: list[Any] = field(default_factory=list)
    as_noted: Callable[[Any], Any] = lambda one: one

    def key(self, identity: Mapping[str, Any]) -> str:
        """Returns the name of what these problems are remembered under."""
        return digest_of([_FORM, self.prompts, identity])

    def find(self, key: str) -> dict[str, Any] | None:
        """Returns an outcome; None where there is none, or a damaged one."""
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            kept = json.loads((self.folder / f"{key}.json").read_bytes())
            if kept["digest"] == digest_of(kept["outcome"]):
                # A list first: all are noted, or none.
                self.noted.extend([*map(self.as_noted, kept["outcome"].pop("noted"))])
                return dict(kept["outcome"])
        return None

    def keep(self, key: str, outcome: Mapping[str, Any], noted: Sequence[Any]) -> None:
        """Writes an outcome; the file appears when it is whole, and of two writers one wins."""
        plain = json.loads(json.dumps({**outcome, "noted": noted}))
        text = json.dumps({"digest": digest_of(plain), "outcome": plain})
        # Where nothing can be written, the next run reads the pictures once more.
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=f".{key[:8]}-")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                os.replace(name, self.folder / f"{key}.json")
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise


def digest_of(plain: Any) -> str:
    """Returns a hash of plain values."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def state_of_files(tables: Iterable[Path], pictures: Iterable[Path]) -> dict[str, Any]:
    """Returns what tells files from other versions of them.

    Args:
        tables: whose contents are hashed.
        pictures: which may be many: size and times of change, as the file system says; nothing is opened. One of the
            times nobody can set, so that a picture that was put in the place of another with its size and time is new.
    """
    hashes = []
    for table in tables:
        with table.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return {"tables": hashes, "pictures": digest_of([_state(picture) for picture in pictures])}


def _state(picture: Path) -> list[Any]:
    try:
        status = picture.stat()
    except (OSError, ValueError):  # ValueError: no path at all
        return [str(picture), None]
    return [str(picture), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
