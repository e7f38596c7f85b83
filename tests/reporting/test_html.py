import json
import re

import pytest

from papo.reporting.html import (
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
    assert "default-src &#39;none&#39;" in policy[1]
    assert "script-src &#39;none&#39;" in policy[1]
    assert "<script" not in text


def test_only_the_script_of_the_page_is_allowed():
    text = page("t", Markup(""), script="document.title = 'a < b && c';")
    assert "script-src &#39;sha256-" in text
    # The hash covers the text between the tags as it stands, so it must not be escaped.
    assert "<script>document.title = 'a < b && c';</script>" in text


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 columns; got a row of 1"):
        table("c", ["a", "b"], [["only one"]])


def test_a_table_names_its_rows_and_columns():
    text = table("Shares", ["run", "share"], [["first", 0.5]])
    assert "<caption>Shares</caption>" in text
    assert '<th scope="col">share</th>' in text
    assert '<th scope="row">first</th><td>0.5</td>' in text


def test_only_pictures_become_data_uris():
    assert data_uri(b"\x89PNG\r\n\x1a\n...").startswith("data:image/png;base64,")
    assert data_uri(b"\xff\xd8\xff...").startswith("data:image/jpeg;base64,")
    assert data_uri(b"RIFF....WEBP").startswith("data:image/webp;base64,")
    with pytest.raises(ValueError, match="PNG, JPEG or WebP"):
        data_uri(b"<svg onload=alert(1)>")
