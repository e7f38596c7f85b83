"""A zip of pictures becomes a folder, once, and nothing else: what it holds is not trusted."""

import errno
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from papo.storage.files import user_cache

# Pictures are compressed already: an archive of them that shrinks so far is none.
MAX_COMPRESSION_RATIO = 100
MAX_MEMBERS = 1_000_000
MAX_DEPTH, MAX_PATH_BYTES, _MAX_NAME_BYTES = 32, 1024, 255
"""Of a member's path: what every file system takes below a folder, and far more than data sets have."""
_SMALL_BYTES = 64 * 1024**2
"""Below this size no ratio is suspicious: it fits everywhere."""
_DISK_BLOCK_BYTES = 4096
STALE_SECONDS = 60
"""So old, an unfinished folder that nobody holds is a dead process's: making one and holding it takes less."""
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(UnicodeDecodeError, IndexError, struct.error),  # names and fields
    NotImplementedError,  # a way of compressing that this Python does not know
)


def extract_images(archive: Path, *, max_archive_gb: float) -> Path:
    """Returns the folder that holds the files of a zip archive, extracting it the first time.

    The folder stands beside the archive and has its name without `.zip`; where nothing can be
    written there, it stands in the user's cache (`XDG_CACHE_HOME`, else `~/.cache`). It appears
    when it is complete. What killed extractions of it left behind is removed.

    Args:
        archive: the zip file.
        max_archive_gb: the most its files may take on the disk, in 1e9 bytes.

    Raises:
        ValueError: it is no zip archive, it is damaged, its files would take more room than allowed
            or were compressed as pictures never are, or a member would leave the folder, is a link
            or is encrypted.
        OSError: the files cannot be written.
    """
    beside, cached = archive.with_suffix(""), _cache_folder(archive)
    for folder in (beside, cached):
        _remove_stale(folder)
        if folder.is_dir():
            return folder
    folder = beside if os.access(archive.parent, os.W_OK) else cached
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with _held(unfinished):
            _extract(archive, unfinished, max_archive_gb)
            unfinished.chmod(0o755)  # mkdtemp's folder is its owner's alone
            try:
                unfinished.rename(folder)
            except OSError:
                # Another process was faster; its files are the same.
                if not folder.is_dir():
                    raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _remove_stale(folder: Path) -> None:
    """Removes the unfinished folders of killed extractions: this user's, old, and held by nobody."""
    # mkdtemp's names; another archive's may begin like this one's.
    pattern = re.compile(re.escape(f".{folder.name}-") + "[a-z0-9_]{8}")
    for left in folder.parent.glob(".*"):
        if not pattern.fullmatch(left.name):
            continue
        with suppress(OSError):  # in use, gone meanwhile, or on a disk that cannot tell: it stays
            status = left.lstat()
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            if ours and time.time() - status.st_mtime > STALE_SECONDS:
                with _held(left, must=True):
                    shutil.rmtree(left)


@contextmanager
def _held(folder: Path, *, must: bool = False) -> Iterator[None]:
    """Locks a folder while inside; the lock ends with the process, however that ends.

    Raises:
        OSError: `must`, and another process holds it or the file system has no locks.
    """
    # Not on Windows, where nothing but archives needs it.
    import fcntl

    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if must:
                raise
        yield
    finally:
        os.close(handle)


def _cache_folder(archive: Path) -> Path:
    status = archive.stat()
    identity = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return user_cache() / f"{archive.stem}-{digest}"


def _extract(archive: Path, folder: Path, max_archive_gb: float) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            if len(opened.infolist()) > MAX_MEMBERS:
                raise ValueError(
                    f"{archive} is refused, nothing was extracted: it has {len(opened.infolist()):,} "
                    f"members, more than {MAX_MEMBERS:,}"
                )
            paths = [_checked_path(member, archive) for member in members]
            _check_names(paths, archive)
            _check_size(members, archive, max_archive_gb)
            for member, path in zip(members, paths, strict=True):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                # A reader stops at the size the member declares, so the check above holds.
                with opened.open(member) as source, target.open("xb") as copy:
                    shutil.copyfileobj(source, copy)
    except FileExistsError as error:
        raise ValueError(f"{archive} holds the same file twice: {error.filename}") from error
    except (*_DAMAGE, OSError) as error:
        # A place in the file that cannot be; other errors of the system, a full disk, are not its fault.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(
            f"{archive} cannot be read as a zip archive: {error}. Is the download complete?"
        ) from error


def _checked_path(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    name = member.orig_filename
    path = PurePosixPath(name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        problem = "would be written outside of its folder"
    elif not path.parts:
        problem = "has no name"
    elif len(path.parts) > MAX_DEPTH:
        problem = f"lies {len(path.parts):,} folders deep, more than {MAX_DEPTH}"
    elif len(name.encode()) > MAX_PATH_BYTES or any(
        len(part.encode()) > _MAX_NAME_BYTES for part in path.parts
    ):
        problem = "has a longer name than file systems take"
    elif kind not in (0, stat.S_IFREG):
        problem = "is a link or a special file"
    elif member.flag_bits & 0x1:
        problem = "is encrypted"
    else:
        return path
    raise ValueError(
        f"{archive} is refused, nothing was extracted: its member {_shown(name)} {problem}. "
        "Download the archive again, from where its authors published it."
    )


def _check_names(paths: list[PurePosixPath], archive: Path) -> None:
    files: set[PurePosixPath] = set()
    for path in paths:
        if path in files:
            raise ValueError(
                f"{archive} is refused, nothing was extracted: it holds the same file twice: "
                f"{_shown(str(path))}"
            )
        files.add(path)
    for path in paths:
        if inner := files.intersection(path.parents):
            raise ValueError(
                f"{archive} is refused, nothing was extracted: its member {_shown(str(path))} lies in "
                f"{_shown(str(inner.pop()))}, which is a file"
            )


def _shown(name: str) -> str:
    return repr(name if len(name) <= 120 else f"{name[:80]}...{name[-30:]}")


def _check_size(members: list[zipfile.ZipInfo], archive: Path, max_archive_gb: float) -> None:
    # A file takes at least a block of the disk, however empty it is.
    size = sum(max(member.file_size, _DISK_BLOCK_BYTES) for member in members)
    if size > max_archive_gb * 1e9:
        raise ValueError(
            f"{archive} is refused, nothing was extracted: its {len(members)} files would take "
            f"{size / 1e9:.1f} GB, more than max_archive_gb={max_archive_gb}. "
            "Raise max_archive_gb if that is what you expect."
        )
    stored = sum(member.compress_size for member in members)
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(_SMALL_BYTES, MAX_COMPRESSION_RATIO * stored):
        raise ValueError(
            f"{archive} is refused, nothing was extracted: its files would grow from "
            f"{stored / 1e6:.1f} MB to {unpacked / 1e6:.1f} MB, which pictures do not. "
            "If you trust it, extract it yourself beside the archive."
        )
