"""The eyes of the other tests see what is wrong with a page."""

import pytest
from analysis.chromium import PHONE

SOUND = """<!doctype html><html lang="en"><meta charset="utf-8"><title>a page</title>
<meta name="viewport" content="width=device-width"><h1>One</h1><p>words</p></html>"""

FAULTS = {
    "pictures that show nothing": "<img src='data:,' alt='nothing'>",
    "pictures without words": '<img src=\'data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" '
    'width="9" height="9"/>\'>',
    "tables without a caption": "<table><tr><td>1</table>",
    "drawings without words": "<svg></svg>",
    "headings skip a level": "<h3>Three</h3>",
    "wider than 360": "<p style='width: 900px'>wide",
    "contrast": "<p style='color: #aaa'>pale",
    "said aloud": "<script>console.log('said aloud')</script>",
    "elsewhere.png": "<script>new Image().src = 'elsewhere.png'</script>",
}


def faults(browser, tmp_path, page):
    file = tmp_path / "page.html"
    file.write_text(page)
    return browser.open(file, size=PHONE).faults()


def test_a_sound_page_has_no_faults(browser, tmp_path):
    assert faults(browser, tmp_path, SOUND) == []
    assert faults(browser, tmp_path, SOUND.replace(' lang="en"', "")) == ["no language"]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_seen(fault, browser, tmp_path):
    found = faults(browser, tmp_path, SOUND.replace("</html>", FAULTS[fault] + "</html>"))
    assert any(fault in one for one in found), found
