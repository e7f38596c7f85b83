"""Does the hub have it, and does the hub answer? Asked before anything is downloaded."""

from typing import Literal

from papo.deadline import within

ANSWER_SECONDS = 5.0


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
