"""Does the hub have it, and does the hub answer? Asked before anything is downloaded, which ends in time."""

from collections.abc import Callable
from typing import Literal, TypeVar

from papo.machine.deadline import within

ANSWER_SECONDS = 5.0
SLOWEST_BYTES_PER_SECOND = 100_000
"""A download that is slower on the whole is given up on; the hub's library has time-outs of single reads."""
START_SECONDS = 60.0

_MODEL_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja"]

Loaded = TypeVar("Loaded")


def check_hub_answers(
    repository: str, *, kind: Literal["model", "dataset"], revision: str | None, remedy: str
) -> None:
    """Returns when the hub answers for a repository that is not in the local cache.

    Args:
        repository: its id on the hub.
        kind: what it holds.
        revision: commit, branch or tag; None for the default branch.
        remedy: the sentence of the message that says what to do instead.

    Raises:
        FileNotFoundError: the hub has no such repository, or does not answer within seconds.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise FileNotFoundError(
            f"the {kind} {repository} is not in the local cache and HF_HUB_OFFLINE is set. {remedy}"
        )
    try:
        within(
            ANSWER_SECONDS,
            lambda: HfApi().repo_info(
                repository, repo_type=kind, revision=revision, timeout=ANSWER_SECONDS
            ),
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f"the hub has no {kind} {repository!r} (revision {revision or 'main'}) that this account "
            f"may read. {remedy}"
        ) from error
    except Exception as error:
        raise FileNotFoundError(
            f"the {kind} {repository} is not in the local cache and the hub cannot be reached "
            f"({error}). {remedy}"
        ) from error


def download_in_time(
    repository: str,
    *,
    kind: Literal["model", "dataset"],
    revision: str | None,
    load: Callable[[], Loaded],
    file: str | None = None,
    max_bytes: float | None = None,
    key: str = "",
) -> Loaded:
    """Returns what `load` returns, which downloads from the hub or finds it in the cache.

    Args:
        repository: its id on the hub.
        kind: what it holds.
        revision: commit, branch or tag; None for the default branch.
        load: where it is given up on, it goes on until it or the process ends.
        file: the one that is downloaded; None is all of the repository.
        max_bytes: the most it may have; None leaves that to the disk.
        key: the setting behind `max_bytes`, for the message.

    Raises:
        ValueError: it is larger than allowed.
        FileNotFoundError: it did not come in the time that its size takes at 100 kB/s.
    """
    num_bytes = _size(repository, kind, revision, file)
    if num_bytes is None:
        return load()  # from the cache, or it says what is wrong
    size = f"{num_bytes / 1e9:.2f} GB"
    if max_bytes is not None and num_bytes > max_bytes:
        raise ValueError(f"it has {size}, more than {key}; raise that if it is what you expect")
    seconds = START_SECONDS + num_bytes / SLOWEST_BYTES_PER_SECOND
    try:
        return within(seconds, load)
    except TimeoutError as error:
        raise FileNotFoundError(
            f"the {kind} {repository} ({size}) did not come within {seconds:.0f} s. What came is kept; the "
            "same command asks for the rest."
        ) from error


def fetch_model(hub_id: str, *, revision: str | None) -> None:
    """Puts the files of a model into the local cache, its code aside, in time; does nothing offline.

    Raises:
        FileNotFoundError: see `download_in_time`.
        OSError: as the hub's library says it.
    """
    from huggingface_hub import snapshot_download

    if _size(hub_id, "model", revision, None) is not None:
        download_in_time(
            hub_id,
            kind="model",
            revision=revision,
            load=lambda: snapshot_download(hub_id, revision=revision, allow_patterns=_MODEL_FILES),
        )


def _size(repository: str, kind: str, revision: str | None, file: str | None) -> int | None:
    """Bytes of a repository, or of one of its files; None where the hub does not say."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        found = within(
            ANSWER_SECONDS,
            lambda: HfApi().repo_info(
                repository,
                repo_type=kind,
                revision=revision,
                timeout=ANSWER_SECONDS,
                files_metadata=True,
            ),
        )
    except Exception:  # not there, not reachable: whoever loads says it in their words
        return None
    siblings = getattr(found, "siblings", None) or ()
    return sum(one.size or 0 for one in siblings if file in (None, one.rfilename))
