"""The page about a data set: what it says, and that nothing in the data becomes markup."""

from analysis.chromium import PHONE
from PIL import Image

from papo.analysis.pages.data import data_page
from papo.data import Preview
from papo.data.filtering import ProblemFilterReport
from papo.types import Problem

HOSTILE = '</script></title><img src=x onerror="document.title=666"><script>document.title=666</script>{{ 7 * 7 }}'


def preview(text):
    return Preview(
        rows=3,
        files=(text,),
        columns=(text, "image"),
        read_as=text,
        notes=(text,),
        report=ProblemFilterReport(
            seen=3, kept=1, with_pictures=1, dropped={text: 2}, examples={text: (text, text)}
        ),
        first=Problem(
            id=text,
            question=f"<image>{text}",
            answer=text,
            images=(Image.new("RGB", (40, 30), "white"),),
            source="own",
            system_prompt=text,
        ),
        graded=2,
        refused=((text, text),),
    )


def test_the_page_says_what_was_read_and_what_was_left_out():
    page = data_page(preview("words"), pictures=[], tokens=["<|start|>", "words"])
    for part in ("1 of 3, 1 with pictures", "40 x 30 pixels", "The prompt, token by token (2)"):
        assert part in page
    assert "<code>&lt;|start|&gt;</code><code>words</code>" in page
    assert page.count("data:image/png") == 1


def test_whatever_the_data_hold_stays_text(browser, tmp_path):
    file = tmp_path / "page.html"
    text = HOSTILE + "x" * 3_000
    file.write_text(data_page(preview(text), pictures=[], tokens=[text, "\u202e"]))
    tab = browser.open(file, size=PHONE)
    assert "666" not in tab.run("document.title")
    assert tab.run("document.querySelectorAll('script, [onerror]').length") == 0
    assert "{{ 7 * 7 }}" in tab.run("document.querySelector('main').textContent")
    assert tab.faults() == []
    tab.dark()
    assert tab.faults() == []
