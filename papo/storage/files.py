"""Writing files so that a crash, a full disk or a second process cannot spoil them; reading those that were spoilt."""

import errno
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class DamagedFile(ValueError):
    """A file that this project wrote does not hold what it wrote; the message names it and the way out."""


def user_cache() -> Path:
    """The folder of what can be made anew: papo in `XDG_CACHE_HOME`, else in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "papo"


def write_atomically(path: Path, text: str) -> None:
    """Writes the whole file or leaves the old one."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        to_disk(file)
    os.replace(unfinished, path)


def to_disk(file: IO[Any]) -> None:
    """Returns once what was written to an open file survives a power cut."""
    file.flush()
    os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Writes plain values as JSON, the whole file or nothing."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def writable(text: str) -> str:
    """Returns the text without lone surrogates, which JSON can hold and no file or request can."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_object(
    path: Path, *, remedy: str, fields: Mapping[str, type | tuple[type, ...]] | None = None
) -> dict[str, Any]:
    """Returns the JSON object that a file holds.

    Args:
        path: of the file.
        remedy: what to do where it is missing or damaged; ends the message.
        fields: keys that must be there, with the types of their values.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it holds no such object.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing. {remedy}") from None
    except RecursionError:
        raise DamagedFile(f"{path} is damaged: nested too deep. {remedy}") from None
    except ValueError as error:  # No JSON, or no UTF-8.
        raise DamagedFile(f"{path} is damaged: {error}. {remedy}") from error
    if not isinstance(content, dict):
        raise DamagedFile(
            f"{path} is damaged: it holds {type(content).__name__}, no object. {remedy}"
        )
    for key, kind in (fields or {}).items():
        if key not in content:
            raise DamagedFile(f"{path} is damaged: {key} is missing. {remedy}")
        if not isinstance(content[key], kind):
            raise DamagedFile(f"{path} is damaged: {key} is {str(content[key])[:80]!r}. {remedy}")
    return content


@dataclass(frozen=True, slots=True)
class CutLines:
    """Whole lines that were taken out of a table.

    Attributes:
        table: where they stood.
        count: how many.
        kept: the file beside the table that has them now.
    """

    table: Path
    count: int
    kept: Path

    def __str__(self) -> str:
        lines = "1 line" if self.count == 1 else f"{self.count} lines"
        return f"{lines} of {self.table.name} will be written again; as they were, in {self.kept}"


def cut_lines(
    path: Path, keeps: Callable[[int, bytes], bool], *, header_lines: int = 0
) -> CutLines | None:
    """Takes lines out of a table and keeps them beside it, in TABLE.cut-TIME.

    Half a line at the end, which a crash left, is dropped: nobody can read it. Where nothing is taken
    out, the table is not written.

    Args:
        path: of the table; nothing happens where it is not there.
        keeps: of the number of a line (the first is 0) and its bytes without the break, whether it stays.
        header_lines: so many lines stay in any case, and head what is kept beside too.
    """
    if not path.exists():
        return None
    unfinished = [path.with_name(path.name + end) for end in (".unfinished", ".cut.unfinished")]

    def stays(number: int, line: bytes) -> bool:
        return line.endswith(b"\n") and (number < header_lines or keeps(number, line[:-1]))

    with path.open("rb") as lines:
        if all(stays(number, line) for number, line in enumerate(lines)):
            return None
    count = 0
    try:
        with path.open("rb") as lines, _created(unfinished) as (staying, leaving):
            for number, line in enumerate(lines):
                if not line.endswith(b"\n"):
                    continue
                if stays(number, line):
                    staying.write(line)
                if number < header_lines or not stays(number, line):
                    leaving.write(line)
                    count += number >= header_lines
        kept = _free_name(path)
        if count:
            # First: a crash in between costs a second copy, no line.
            os.replace(unfinished[1], kept)
        os.replace(unfinished[0], path)
    finally:
        for one in unfinished:
            one.unlink(missing_ok=True)
    return CutLines(path, count, kept) if count else None


@contextmanager
def _created(paths: list[Path]) -> Iterator[list[Any]]:
    """New files, which are on the disk afterwards."""
    files = [path.open("wb") for path in paths]
    try:
        yield files
        for file in files:
            to_disk(file)
    finally:
        for file in files:
            file.close()


def _free_name(path: Path) -> Path:
    time = datetime.now(UTC).strftime("%Y-%m-%d_%H-%M-%S")
    number, name = 1, path.with_name(f"{path.name}.cut-{time}")
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.cut-{time}_{number}")
    return name


class AppendOnlyFile:
    """Lines that are on disk once `append` returns; a line a crash cut short is dropped on opening.

    Args:
        path: made if it is not there, with its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_bytes() if path.exists() else b""
        self._size = whole.rfind(b"\n") + 1
        if self._size < len(whole):
            os.truncate(path, self._size)

    def read_lines(self) -> list[str]:
        """Returns the whole lines, without their ends.

        Raises:
            DamagedFile: they are no text.
        """
        try:
            return self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        except UnicodeDecodeError as error:
            raise DamagedFile(f"{self.path} is damaged: {error}") from error

    def append(self, lines: str) -> None:
        """Writes whole lines, all of them or none.

        Args:
            lines: each with its end.

        Raises:
            OSError: they could not be written (a full disk); the file is as before.
        """
        encoded = lines.encode("utf-8")
        try:
            with self.path.open("ab") as file:
                file.write(encoded)
                to_disk(file)
        except OSError:
            if self.path.exists():
                os.truncate(self.path, self._size)
            raise
        self._size += len(encoded)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder for this process; the lock ends with the process, however that ends.

    Where the file system has no locks, a warning says so and the work goes on.

    Raises:
        ValueError: another process holds it.
        OSError: nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "fcntl is missing")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process writes to {folder}; wait until it ends, or choose another run_dir"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f"the file system of {folder} has no locks ({error.strerror}), so see to it that no second "
                "process writes there",
                stacklevel=3,
            )
        yield


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
