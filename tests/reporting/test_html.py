import ast
import json
import re
from pathlib import Path

import pytest

import papo
from papo.reporting.html import (
    Cell,
    Markup,
    data_uri,
    details,
    join,
    json_for_script,
    page,
    paragraph,
    section,
    table,
)

HOSTILE = '</script></title><img src=x onerror="alert(1)">'


def test_text_is_escaped_wherever_it_is_put():
    body = join(
        [
            section("one", HOSTILE, paragraph(HOSTILE)),
            details(HOSTILE, Markup("<p>{}</p>").format(HOSTILE)),
            table(HOSTILE, [HOSTILE, "b"], [[HOSTILE, HOSTILE]]),
            HOSTILE,
        ]
    )
    text = page(HOSTILE, body, lead=HOSTILE, contents={HOSTILE: HOSTILE}, data={"d": HOSTILE})
    assert "<img" not in text
    assert "onerror=&#34;" in text
    assert text.count("</title>") == 1
    assert text.count("</script>") == 1


def test_json_inside_a_script_cannot_end_it_and_reads_back():
    value = {"text": HOSTILE + "&\u2028<!--", "number": 0.25}
    text = json_for_script(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError):
        json_for_script([float("nan")])


def test_a_page_without_a_script_forbids_scripts():
    text = page("t", Markup("<p>x</p>"))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "script-src 'none'" in policy[1]
    assert "<script" not in text


def test_only_the_script_of_the_page_is_allowed():
    text = page("t", Markup(""), script="document.title = 'a < b && c';")
    assert "script-src 'sha256-" in text
    # The hash covers the text between the tags as it stands, so it must not be escaped.
    assert "<script>document.title = 'a < b && c';</script>" in text


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 columns; got a row of 1"):
        table("c", ["a", "b"], [["only one"]])


def test_a_table_names_its_rows_and_columns():
    text = table("Shares", ["run", "share"], [["first", 0.5]])
    assert "<caption><div>Shares <span" in text
    assert '<th scope="col">share</th>' in text
    assert '<th scope="row">first</th><td>0.5</td>' in text


def test_a_table_says_from_which_width_down_it_scrolls():
    narrow = table("c", ["a", "b"], [["x", "1"]])
    wide = table("c", ["a"] * 12, [["0.1234\u00a0[0.1,\u00a00.2]"] * 12])
    assert "wider-than-22" in narrow
    assert "wider-than-999" in wide


def test_a_cell_has_a_ground_as_strong_as_it_is_shaded():
    text = table("c", ["a", "b", "c"], [["x", Cell("<3>", 1.0), Cell("0", 0.0)]])
    assert '<td style="background:rgb(11 98 168 / 45%)">&lt;3&gt;</td>' in text
    assert '/ 0%)">0</td>' in text


def test_text_of_data_is_never_a_template():
    text = page("{{ 7 * 7 }}", paragraph("{% raw %}{{ 7 * 7 }}"), lead="{{ 7 * 7 }}")
    assert "49" not in text.split("</style>")[1]


def test_pages_write_no_tags_outside_their_templates():
    """Markup that is put together in Python is where escaping gets lost."""
    package = Path(papo.__file__).parent
    found = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Markup"
        and any(isinstance(one, ast.Constant) and "<" in str(one.value) for one in node.args)
    ]
    assert set(found) <= {
        "reporting/charts/axes.py",
        "reporting/charts/lines.py",
        "reporting/charts/rows.py",
    }


def test_only_pictures_become_data_uris():
    assert data_uri(b"\x89PNG\r\n\x1a\n...").startswith("data:image/png;base64,")
    assert data_uri(b"\xff\xd8\xff...").startswith("data:image/jpeg;base64,")
    assert data_uri(b"RIFF....WEBP").startswith("data:image/webp;base64,")
    with pytest.raises(ValueError, match="PNG, JPEG or WebP"):
        data_uri(b"<svg onload=alert(1)>")
