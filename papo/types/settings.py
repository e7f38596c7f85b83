"""Sections of the configuration, checked key by key: all that is wrong is said at once, in the words of each key."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_AT_LEAST_1 = "{key} is a whole number of at least 1; got {got}. Set {key}"
Count = Annotated[int, Field(ge=1, description=f"{_AT_LEAST_1}.")]
CountOrNone = Annotated[
    Annotated[int, Field(ge=1)] | None, Field(description=f"{_AT_LEAST_1}, or null.")
]
CountFrom0 = Annotated[
    int, Field(ge=0, description="{key} is a whole number of at least 0; got {got}. Set {key}.")
]
Truth = Annotated[bool, Field(description="{key} is true or false; got {got}")]


class Section(BaseModel):
    """A section; the `description` of a field is what is said where its value is none.

    `{key}` and `{got}` stand for the key and its value. Rules between keys are checked by a `model_validator` when
    every key is right by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Settings = TypeVar("Settings", bound=Section)


def section_settings(
    kind: type[Settings], section: Mapping[str, Any], *, name: str, file: str
) -> Settings:
    """Returns the settings of a section.

    Args:
        kind: of section.
        section: as the configuration has it.
        name: of the section, for messages.
        file: where its keys are set.

    Raises:
        ValueError: names every unknown, missing or impossible key, or the rule that keys break together.
    """
    try:
        return kind.model_validate(dict(section))
    except ValidationError as error:
        said = dict.fromkeys(_in_words(kind, one, name, file) for one in error.errors())
        *others, last = said
        raise ValueError("; ".join([*(one.removesuffix(".") for one in others), last])) from None


def _in_words(kind: type[Section], error: Any, name: str, file: str) -> str:
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    field = str(error["loc"][0])
    key = f"{name}.{field}"
    if error["type"] == "extra_forbidden":
        return f"unknown key {key}; known: {', '.join(sorted(kind.model_fields))}"
    if error["type"] == "missing":
        return f"{key} is not set; set it in {file}"
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    rule = kind.model_fields[field].description or "{key} is not {got}"
    return rule.format(key=key, got=repr(error["input"]))
