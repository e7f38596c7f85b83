"""How a message prints what came from data, and names the key that sets something."""

MOST_CHARACTERS = 100
"""Of a value in a message: enough to recognise it, too little to flood a terminal."""

_OF_ALL_SETS = ("path", "revision", "limit", "max_archive_gb", "prompt_suffix", "shape")


def shown(value: object, most: int = MOST_CHARACTERS) -> str:
    """Returns a value on one line, cut where it is long, with its length; text stands without quotes.

    Data hold pictures in base64, control characters of terminals, and halves of surrogate pairs, which
    no terminal can print: what is not printable is written as its escape.
    """
    text = value if isinstance(value, str) else repr(value)
    start = "".join(
        character if character.isprintable() else ascii(character)[1:-1]
        for character in text[:most]
    )
    return start if len(text) <= most else f"{start}... ({len(text):,} characters)"


def key_in(section: str, setting: str) -> str:
    """Returns the key of a data set's setting, as the command line spells it.

    Args:
        section: where the data set's settings stand: `data`, or `benchmark.sets.KEY.problems`, where
            what all sets share is set once for the benchmark.
        setting: the name of one.
    """
    if section.startswith("benchmark.") and setting in _OF_ALL_SETS:
        return f"benchmark.{setting}"
    return f"{section}.{setting}"
