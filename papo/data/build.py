"""What every data set has in common: a question, an answer and pictures become a checked Problem."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from papo.data.problem_error import ProblemError
from papo.types import IMAGE_MARKER, Problem, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What a problem says, checked: see `checked_texts`.

    Attributes:
        question: one `<image>` marker per picture.
        answer: without a box around it.
        markers_added: whether the question came without markers.
    """

    question: str
    answer: str
    markers_added: bool


def checked_texts(*, id: str, question: str, answer: str, num_images: int) -> Texts:
    """Returns the texts of a problem; pictures of a question without any marker stand before it.

    So does TRL: `prepare_multimodal_messages`, trl 1.7.1, puts them before the text of the first user turn.

    Raises:
        ProblemError: the question or the answer is empty, text is broken, or there are markers, but not
            one for each picture.
    """
    for name, text in (("id", id), ("question", question), ("reference answer", answer)):
        _check_text(name, text)
    if not question:
        raise ProblemError("empty_question", "the question is empty")
    answer = unboxed(answer)
    if not answer:
        raise ProblemError("empty_answer", "the reference answer is empty")
    num_markers = question.count(IMAGE_MARKER)
    markers_added = num_images > 0 and num_markers == 0
    if markers_added:
        question = IMAGE_MARKER * num_images + question
    elif num_markers != num_images:
        raise ProblemError(
            "image_markers",
            f"{num_markers} {IMAGE_MARKER} markers for {num_images} images; the question needs one "
            "marker where each picture stands, or none: then they stand before it",
        )
    return Texts(question=question, answer=answer, markers_added=markers_added)


def build_problem(
    *,
    id: str,
    source: str,
    question: str,
    answer: str,
    images: Sequence[Any],
    read_image: Callable[[Any], Image],
    prompt_suffix: str,
    system_prompt: str = "",
    truth: Mapping[str, Any] | None = None,
) -> Problem:
    """Returns the problem, its answer without a box around it and its question with the suffix.

    Args:
        id: stable within `source`.
        source: the name under which the data set is known.
        question: the text, one `<image>` marker per image, or none.
        answer: the reference answer.
        images: as they are stored.
        read_image: decodes one of them; raises ProblemError where it cannot.
        prompt_suffix: what every question ends with, after an empty line; empty for nothing.
        system_prompt: what the system's turn says; empty for none.
        truth: see `Problem`.

    Raises:
        ProblemError: see `checked_texts`; or an image is broken.
    """
    _check_text("system prompt", system_prompt)
    texts = checked_texts(id=id, question=question, answer=answer, num_images=len(images))
    question = texts.question
    if prompt_suffix and not question.endswith(prompt_suffix):
        question = f"{question}\n\n{prompt_suffix}"
    return Problem(
        id=id,
        question=question,
        answer=texts.answer,
        images=tuple(read_image(image) for image in images),
        source=source,
        system_prompt=system_prompt or None,
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
