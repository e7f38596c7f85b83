"""Writing files so that a crash, a full disk or a second process cannot spoil them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Writes the whole file or leaves the old one."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


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
        """Returns the whole lines, without their ends."""
        return self.path.read_text("utf-8").splitlines() if self.path.exists() else []

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
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            if self.path.exists():
                os.truncate(self.path, self._size)
            raise
        self._size += len(encoded)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder for this process; the lock ends with the process, however that ends.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"another process writes to {folder}; wait until it ends, or choose another run_dir"
            ) from error
        yield
