"""What docs/data.md says of one's own data: its forms are read with its settings, its commands have settings that are meant."""

import json
import re
from pathlib import Path

import pytest
from composing import composed
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from test_paper_page import commands_of

from papo.commands import building
from papo.commands.lab_settings import check_settings_are_meant

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "data.md").read_text("utf-8")
COMMANDS = [
    command
    for page in ("docs/data.md", "docs/training.md")
    for command in commands_of(Path(page))
    if command.words[1] == "train.py" and re.search(r"\b(data|model)(\.path)?=", str(command))
]
FORMS = dict(re.findall(r"^\| ([^|]+) \| `(\{.*\})` \|$", PAGE, re.MULTILINE))
TEXTS = "texts alone (`objective=grpo`)"


@pytest.fixture(autouse=True)
def no_command(monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_of_the_pages_trains_with_settings_that_are_meant(command):
    check_settings_are_meant(composed("train", command.words[2:]))


def test_without_its_experiment_the_command_would_be_refused():
    (command, *_) = COMMANDS
    words = [word for word in command.words[2:] if not word.startswith("+experiment")]
    with pytest.raises(ValueError, match=r"settings for PerceptionLab's .* \+experiment="):
        check_settings_are_meant(composed("train", [*words, "data=local", "model=qwen2_5_vl_3b"]))


def test_the_pages_have_the_commands_and_the_forms():
    assert len([command for command in COMMANDS if command.page == "docs/data.md"]) == 6
    assert len(FORMS) == 10


@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_the_page_is_read_by_its_columns(form, tmp_path):
    picture = tmp_path / "pictures" / "1.png"
    picture.parent.mkdir()
    Image.new("RGB", (60, 40)).save(picture)
    row = json.loads(FORMS[form].replace("PICTURE", '"pictures/1.png"'))
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    settings = ["objective=grpo"] if form == TEXTS else []
    config = composed("train", ["+experiment=own_data", f"data.path={tmp_path}", *settings])
    problem = building.instantiate(config.data)[0]
    question, asked = problem.question.split("\n")[0], ("<image>How many?", "3", 1)
    if form == TEXTS:
        asked = ("1 + 1?", "2", 0)
        assert set(config.objective.terms) == {"surrogate", "kl_ref"}
    assert (question, problem.answer, len(problem.images)) == asked


@pytest.mark.parametrize(
    "given", [[], ["objective=papo_g"], ["objective=papo_g", "training=published"]]
)
def test_the_line_that_helps_names_the_experiment_of_the_data(given, monkeypatch):
    words = ["model=qwen2_5_vl_3b", "data=local", "data.path=F", *given]
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    with pytest.raises(
        ValueError, match=r"\+experiment=own_data model=qwen2_5_vl_3b data=local data\.path=F"
    ):
        check_settings_are_meant(composed("train", words))
    check_settings_are_meant(composed("train", ["+experiment=own_data", *words]))
    others = ["model=qwen2_5_vl_3b", "data=geometry3k", *given]
    with pytest.raises(ValueError, match=r"\+experiment=papo_geo3k"):
        check_settings_are_meant(composed("train", others))


def test_what_the_page_says_of_rows_and_prompts_is_taken_from_the_command_line(tmp_path):
    rows = [
        {"question": "?", "answer": "1", "level": n, "meta": {"kind": "a"}} for n in ("hard", 5, 6)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = ["+experiment=own_data", f"data.path={tmp_path}"]
    filters = re.findall(r"`'(data\.filter=[^`]+)'`", PAGE)
    assert len(filters) == 2
    for text, count in zip(filters, (1, 2), strict=True):
        problems = building.instantiate(composed("train", [*own, text]).data)
        assert len(problems) == count
    for text, said in (("data.system_prompt=Look.", "Look."), ('data.system_prompt=""', None)):
        assert building.instantiate(composed("train", [*own, text]).data)[0].system_prompt == said


def test_every_reason_that_the_page_lists_is_one_and_none_is_missing():
    reasons = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`\w+`.*?) \|", PAGE, re.MULTILINE)))
    sources = " ".join(
        file.read_text("utf-8") for file in (REPOSITORY / "papo" / "data").glob("*.py")
    )
    raised = set(re.findall(r'ProblemError\(\s*"(\w+)"', sources))
    assert set(reasons) == raised
