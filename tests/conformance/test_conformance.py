"""Every model family has every property; the table of docs/models.md says which family has which, and is made here."""

from pathlib import Path

import pytest
from plain_families import PLAIN
from properties import EXCEPT, PROPERTIES

from papo.models.families import SUPPORTED_FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("family", SUPPORTED_FAMILIES)
def test_family(family, name, tmp_path):
    if (family, name) in EXCEPT:
        pytest.skip(EXCEPT[family, name])
    PROPERTIES[name](family, tmp_path)


def table():
    """Families as columns, properties as rows."""
    rows = [["what holds", *(f"`{family}`" for family in SUPPORTED_FAMILIES)]]
    rows.append(["---"] * len(rows[0]))
    for name, each in PROPERTIES.items():
        cells = [EXCEPT.get((family, name), "yes") for family in SUPPORTED_FAMILIES]
        rows.append([each.__doc__, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def test_the_table_of_the_page_is_that_of_the_tests():
    assert table() in PAGE.read_text("utf-8"), table()


def test_every_family_is_compared_with_hugging_face():
    assert set(PLAIN) == set(SUPPORTED_FAMILIES)
