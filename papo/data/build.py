"""What every data set has in common: a question, an answer and pictures become a checked Problem."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL.Image import Image

from papo.data.problem_error import ProblemError
from papo.types import IMAGE_MARKER, Problem, shown


def build_problem(
    *,
    id: str,
    source: str,
    question: str,
    answer: str,
    images: Sequence[Any],
    read_image: Callable[[Any], Image],
    prompt_suffix: str,
    truth: Mapping[str, Any] | None = None,
) -> Problem:
    """Returns the problem, its answer without a box around it and its question with the suffix.

    Args:
        id: stable within `source`.
        source: the name under which the data set is known.
        question: the text, one `<image>` marker per image.
        answer: the reference answer.
        images: as they are stored.
        read_image: decodes one of them; raises ProblemError where it cannot.
        prompt_suffix: what every question ends with, after an empty line; empty for nothing.
        truth: see `Problem`.

    Raises:
        ProblemError: the question or the answer is empty, text is broken, the markers do not fit the
            images, or an image is broken.
    """
    for name, text in (("id", id), ("question", question), ("reference answer", answer)):
        _check_text(name, text)
    if not question:
        raise ProblemError("empty_question", "the question is empty")
    answer = unboxed(answer)
    if not answer:
        raise ProblemError("empty_answer", "the reference answer is empty")
    num_markers = question.count(IMAGE_MARKER)
    if num_markers != len(images):
        raise ProblemError(
            "image_markers",
            f"{num_markers} {IMAGE_MARKER} markers for {len(images)} images; the question needs one "
            "marker where each picture stands",
        )
    if prompt_suffix and not question.endswith(prompt_suffix):
        question = f"{question}\n\n{prompt_suffix}"
    return Problem(
        id=id,
        question=question,
        answer=answer,
        images=tuple(read_image(image) for image in images),
        source=source,
        truth=truth,
    )


def _check_text(name: str, text: str) -> None:
    """Refuses half of a surrogate pair, which JSON can escape and no file, request or tokenizer holds."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ProblemError(
            "broken_text",
            f"the {name} holds {shown(text[error.start])}, half of a character of two, at position "
            f"{error.start}: {shown(text)}",
        ) from error


def unboxed(answer: str) -> str:
    r"""Returns the answer, stripped, without a `\boxed{}` that holds the whole of it."""
    answer = answer.strip()
    opening = r"\boxed{"
    if not answer.startswith(opening) or not answer.endswith("}"):
        return answer
    inside = answer[len(opening) : -1]
    depth = 0
    for character in inside:
        depth += (character == "{") - (character == "}")
        if depth < 0:  # the box closed earlier: `\boxed{1}, \boxed{2}`
            return answer
    return inside.strip() if depth == 0 else answer
