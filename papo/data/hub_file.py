"""Single files of a data set on the hub: from the local cache, or downloaded now."""

from pathlib import Path

from papo.machine.deadline import within
from papo.storage.hub import ANSWER_SECONDS, check_hub_answers, download_in_time


def cached_hub_file(hub_id: str, filename: str, *, revision: str | None) -> Path | None:
    """Returns the file if it was downloaded before, else None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, filename, repo_type="dataset", revision=revision)
    return Path(found) if isinstance(found, str) else None


def check_hub_file(hub_id: str, filename: str, *, revision: str | None, remedy: str) -> None:
    """Returns when the file is in the local cache or the hub answers for its data set.

    Args:
        hub_id: data set id of the hub.
        filename: path of the file in it.
        revision: commit, branch or tag; None is the newest.
        remedy: the sentence of the message that says where to put the file.

    Raises:
        FileNotFoundError: neither; within seconds.
    """
    if cached_hub_file(hub_id, filename, revision=revision) is None:
        check_hub_answers(
            hub_id,
            kind="dataset",
            revision=revision,
            remedy=f"Looked for {filename}. {remedy}",
        )


def fetch_hub_file(
    hub_id: str, filename: str, *, revision: str | None, remedy: str, max_gb: float
) -> Path:
    """Returns the file, downloading it if it is not in the local cache.

    Args:
        hub_id: data set id of the hub.
        filename: path of the file in it.
        revision: commit, branch or tag; None is the newest.
        remedy: the sentence of the message that says where to put the file.
        max_gb: the most it may have, in 1e9 bytes; `max_archive_gb` for the messages.

    Raises:
        FileNotFoundError: it cannot be had, is larger, or does not come in time; the message names the file, and what the data set has
            instead.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    if cached := cached_hub_file(hub_id, filename, revision=revision):
        return cached
    check_hub_file(hub_id, filename, revision=revision, remedy=remedy)
    try:
        return download_in_time(
            hub_id,
            kind="dataset",
            revision=revision,
            file=filename,
            max_bytes=max_gb * 1e9,
            key=f"max_archive_gb={max_gb}",
            load=lambda: Path(
                hf_hub_download(hub_id, filename, repo_type="dataset", revision=revision)
            ),
        )
    except RemoteEntryNotFoundError as error:
        files = within(
            ANSWER_SECONDS,
            lambda: HfApi().list_repo_files(hub_id, repo_type="dataset", revision=revision),
        )
        raise FileNotFoundError(
            f"{hub_id} (revision {revision or 'main'}) has no file {filename}, only "
            f"{', '.join(sorted(files)[:30])}. {remedy}"
        ) from error
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{filename} of {hub_id} cannot be downloaded: {error}. {remedy}"
        ) from error


def commit_of(file: Path) -> str | None:
    """Returns the commit of the hub that a cached file belongs to; None for any other file."""
    parts = file.parts
    return next(
        (
            parts[index + 2]
            for index in range(len(parts) - 2)
            if parts[index].startswith("datasets--") and parts[index + 1] == "snapshots"
        ),
        None,
    )
