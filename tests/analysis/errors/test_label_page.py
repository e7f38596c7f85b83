import io
import json
import re
import time

import pytest
from analysis.chromium import PHONE
from PIL import Image

from papo.analysis.errors.labellers.label_page import (
    LABELS_FORMAT,
    MAX_CHARACTERS,
    LabelItem,
    build_label_page,
)

CATEGORIES = {
    "perception": "misread the picture",
    "reasoning": "wrong rule",
    "calculation": "wrong arithmetic",
    "inconsistency": "contradicts itself",
    "format": "no final answer",
    "other": "none of these",
}
HOSTILE = '</script><img src=x onerror="document.title=666">'


def picture(colour):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


def items(count=3, **changes):
    values = {
        "question": "How long is AB?",
        "images": (picture("red"),),
        "response": "AB = 5 and BC = 8, so the answer is 13.",
        "reference": "12",
    }
    return [LabelItem(item=f"item{index}", **{**values, **changes}) for index in range(count)]


def build(items, analysis="study-1"):
    return build_label_page(items, analysis=analysis, categories=CATEGORIES)


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens a label page whose analysis no other test used: storage is shared by all file:// pages."""

    def open_page(page_items, *, analysis=tmp_path.name, **options):
        file = tmp_path / "label_page.html"
        file.write_text(build(page_items, analysis))
        tab = browser.open(file, **options)
        tab.download_to(tmp_path)
        return tab

    return open_page


def export(tab, folder):
    """Presses the export button and returns what was downloaded."""
    for old in folder.glob("*.json"):
        old.unlink()
    tab.run("document.getElementById('export').click()")
    deadline = time.monotonic() + 20
    # Chromium gives a download its name before its content.
    while not (files := [file for file in folder.glob("*.json") if file.stat().st_size]):
        assert time.monotonic() < deadline, "nothing was downloaded"
        time.sleep(0.02)
    return json.loads(files[0].read_text())


def text(tab, name):
    return tab.run(f"document.getElementById('{name}').textContent")


def write_into(tab, name, value):
    tab.run(f"document.getElementById('{name}').focus()")
    tab.type(value)
    tab.press("Escape")


def test_labels_given_by_keyboard_survive_a_reload_and_are_exported(open_page, tmp_path):
    tab = open_page(items(4))
    write_into(tab, "labeller", "Ada L.")
    tab.press("1", "n", "4", "Enter", "6", "t")
    tab.type("12n?")  # keys typed into a note are text, not commands
    tab.press("Escape")
    tab.reload()
    assert text(tab, "labelled") == "3 of 4 labelled"
    assert text(tab, "position") == "Item 3 of 4"
    exported = export(tab, tmp_path)
    seconds = [label.pop("seconds") for label in exported["labels"]]
    assert exported == {
        "format": LABELS_FORMAT,
        "analysis": tmp_path.name,
        "labeller": "Ada L.",
        "labels": [
            {"item": "item0", "category": "perception", "quote": "", "note": ""},
            {"item": "item1", "category": "inconsistency", "quote": "", "note": ""},
            {"item": "item2", "category": "other", "quote": "", "note": "12n?"},
        ],
    }
    assert all(0 <= value < 60 for value in seconds)
    assert tab.complaints() == []
    assert tab.requests() == []


def test_undo_takes_back_one_change_after_another(open_page):
    tab = open_page(items())
    tab.press("1", "3", "n", "2")
    tab.press("u")
    assert text(tab, "labelled") == "1 of 3 labelled"
    tab.press("u")
    assert text(tab, "position") == "Item 1 of 3", "undo shows the item it changes"
    pressed = "document.querySelector('[aria-pressed=true] b').textContent"
    assert tab.run(pressed) == "perception"
    tab.press("u", "u")
    assert text(tab, "labelled") == "0 of 3 labelled"
    assert text(tab, "status") == "Nothing to undo."


def test_selected_text_of_the_response_becomes_the_quote(open_page):
    tab = open_page(items())
    tab.run(
        """(() => {
            const range = document.createRange();
            const text = document.getElementById('response').firstChild;
            range.setStart(text, 0); range.setEnd(text, 6);
            getSelection().addRange(range);
            document.getElementById('response').dispatchEvent(new Event('pointerup'));
        })()"""
    )
    tab.wait_for("document.getElementById('quote').value === 'AB = 5'")
    assert tab.run("document.querySelector('#response mark').textContent") == "AB = 5"
    assert text(tab, "response") == items()[0].response


def test_a_quote_that_the_answer_does_not_contain_is_pointed_out(open_page):
    tab = open_page(items())
    write_into(tab, "quote", "AB = 5")
    assert tab.run("document.getElementById('quote-warning').hidden")
    write_into(tab, "quote", "0")
    assert not tab.run("document.getElementById('quote-warning').hidden")


def test_nothing_is_exported_without_a_name(open_page, tmp_path):
    tab = open_page(items())
    tab.press("1")
    tab.run("document.getElementById('export').click()")
    assert text(tab, "status").startswith("Enter your name first")
    assert list(tmp_path.glob("*.json")) == []


def labels_file(folder, **changes):
    labels = [{"item": "item1", "category": "format", "quote": "", "note": "n", "seconds": 7.5}]
    values = {"format": LABELS_FORMAT, "analysis": folder.name, "labeller": "Ada", "labels": labels}
    file = folder / "earlier.txt"
    file.write_text(json.dumps({**values, **changes}))
    return file


def test_an_earlier_export_is_continued_and_what_is_labelled_here_stays(open_page, tmp_path):
    tab = open_page(items())
    tab.choose_file("#import", labels_file(tmp_path))
    tab.wait_for("document.getElementById('labelled').textContent === '1 of 3 labelled'")
    tab.press("1")
    exported = export(tab, tmp_path)
    assert exported["labeller"] == "Ada"
    assert [label["category"] for label in exported["labels"]] == ["perception", "format"]
    assert exported["labels"][1]["seconds"] == 7.5
    again = [{"item": "item1", "category": "other", "quote": "", "note": "", "seconds": 1}]
    tab.choose_file("#import", labels_file(tmp_path, labels=again))
    tab.wait_for("document.getElementById('status').textContent.startsWith('0 labels imported')")
    assert [label["category"] for label in export(tab, tmp_path)["labels"]] == [
        "perception",
        "format",
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"analysis": "another"}, "another analysis"),
        ({"format": "papo-labels-0"}, "no export of this kind"),
        ({"labels": "x"}, "no export of this kind"),
        ({"labels": [None]}, "names an item or a category"),
        ({"labels": [{"item": "item9", "category": "format"}]}, "names an item or a category"),
        ({"labels": [{"item": "item1", "category": "typo"}]}, "names an item or a category"),
        ({"labeller": "Grace"}, "labelled by Grace"),
    ],
)
def test_a_file_of_something_else_is_not_imported(open_page, tmp_path, changes, reason):
    tab = open_page(items())
    write_into(tab, "labeller", "Ada")
    tab.choose_file("#import", labels_file(tmp_path, **changes))
    tab.wait_for("document.getElementById('status').textContent !== ''")
    assert reason in text(tab, "status")
    assert text(tab, "labelled") == "0 of 3 labelled"


def test_a_browser_that_keeps_nothing_is_said_and_labelling_still_works(open_page, tmp_path):
    tab = open_page(items())
    # As in a browser that forbids storage to files: every use of it throws.
    tab.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="Object.defineProperty(window, 'localStorage', {get() { throw new Error('no'); }});",
    )
    tab.reload()
    assert "keeps no progress" in text(tab, "notices")
    tab.press("1")
    write_into(tab, "labeller", "Ada")
    assert len(export(tab, tmp_path)["labels"]) == 1


def test_progress_of_one_analysis_is_not_that_of_another(open_page, tmp_path):
    tab = open_page(items())
    tab.press("1")
    other = open_page(items(), analysis=tmp_path.name + "-other")
    assert text(other, "labelled") == "0 of 3 labelled"


def test_hostile_text_stays_text(open_page):
    tab = open_page(items(1, question=HOSTILE, response=HOSTILE, reference=HOSTILE))
    for name in ("question", "response", "reference"):
        assert text(tab, name) == HOSTILE
    assert "666" not in tab.run("document.title")
    assert tab.complaints() == []
    assert tab.requests() == []


def test_the_page_fits_a_phone_and_every_control_has_a_name(open_page):
    tab = open_page(items(2, response="x" * 3000, question="y" * 500), size=PHONE)
    assert tab.faults() == []
    tab.dark()
    assert tab.faults() == []
    # On a phone one reads before one chooses, and files come last.
    order = ("where", "question", "response", "categories", "moves", "files")
    tops = tab.run(
        f"{json.dumps(order)}.map(name => (document.getElementById(name) ?? "
        "document.querySelector('.' + name)).offsetTop)"
    )
    assert [top for name, top in zip(order, tops, strict=True) if name != "moves"] == sorted(
        top for name, top in zip(order, tops, strict=True) if name != "moves"
    )
    box = "document.getElementById('response')"
    assert tab.run(f"{box}.scrollWidth <= {box}.clientWidth"), "long words are wrapped"
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    unnamed = [
        node
        for node in nodes
        if node.get("role", {}).get("value") in ("button", "textbox", "image", "progressbar")
        and not node.get("name", {}).get("value")
    ]
    assert unnamed == []


def test_a_picture_that_items_share_is_stored_once():
    assert build(items(3)).count("data:image/png;base64,") == 1


def test_the_page_is_blind_to_everything_but_the_items():
    data = re.search(r'id="label-data">(.*?)</script>', build(items(1)))
    assert data is not None
    assert set(json.loads(data[1])["items"][0]) == {
        *("item", "question", "images", "response", "characters_left_out", "reference")
    }


def test_a_very_long_response_is_cut_and_the_rest_counted():
    text = build(items(1, response="z" * (MAX_CHARACTERS + 80_000)))
    assert '"characters_left_out": 80000' in text
    assert "z" * (MAX_CHARACTERS + 1) not in text


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (lambda: build([]), "at least one item"),
        (lambda: build(items(1) * 2), "'item0' twice"),
        (lambda: build(items(1, images=(b"<svg>",))), "PNG, JPEG or WebP"),
        (
            lambda: build_label_page(
                items(1), analysis="a", categories=dict.fromkeys("abcdefghij", "")
            ),
            "one key, 1 to 9",
        ),
    ],
)
def test_what_cannot_be_labelled_is_refused(build_it, message):
    with pytest.raises(ValueError, match=message):
        build_it()
