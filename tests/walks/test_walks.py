"""Three people, each from an installed wheel to what they came for, by the commands that the docs print."""

import csv
import json
import re

import pytest
from installed_wheel import REPOSITORY, SHORT, installed, run, wheel
from PIL import Image

__all__ = ["installed", "wheel"]

pytestmark = pytest.mark.slow

TINY = (
    "model=tiny_qwen2_5_vl",
    "trainer=cpu",
    "rollout.max_response_tokens=4",
    "rollout.top_k=null",
)


@pytest.fixture
def papo(installed, tmp_path, forked_libraries):
    """Runs a command that must succeed, in a folder with nothing of the repository; returns what it printed."""

    def papo(*words, own=()):
        done = run(installed, tmp_path, *words, own=own, python=forked_libraries)
        assert done.returncode == 0, done.stdout + done.stderr
        assert str(REPOSITORY) not in done.stdout + done.stderr
        return done.stdout

    return papo


def metrics(run_dir):
    return list(csv.DictReader((run_dir / "metrics.csv").read_text().splitlines()))


def pictures(folder):
    """What a student has: pictures in folders, and a table of what to ask of each."""
    for split in ("train", "test"):
        place = folder / split
        place.mkdir(parents=True)
        rows = ["file_name,question,answer"]
        for number in range(6):
            Image.new("RGB", (56 + 28 * (number % 2), 56), (40 * number, 90, 30)).save(
                place / f"{number}.png"
            )
            rows.append(f"{number}.png,How many dots?,{number}")
        (place / "metadata.csv").write_text("\n".join(rows))
    return folder


def test_a_folder_of_pictures_becomes_a_trained_validated_and_exported_policy(papo, tmp_path):
    data = pictures(tmp_path / "data")
    said = papo("check", "data", f"data.path={data}", "reward=math", *TINY[:1], "run_dir=preview")
    assert "How many dots?" in said
    assert (tmp_path / "preview" / "data.html").is_file()
    papo(
        *("train", "+experiment=own_data", f"data.path={data}", "run_dir=run"),
        *("benchmark=local", "validation.every_rollouts=1", *TINY, *SHORT),
    )
    rows = metrics(tmp_path / "run")
    assert len(rows) == 2
    assert all(0 <= float(row["validation/accuracy"]) <= 1 for row in rows)
    papo(
        *("evaluate", "checkpoint=run/best", "run_dir=evaluation", "rollout.num_responses=1"),
        *("benchmark=local", f"data.path={data}", "rollout.max_response_tokens=4"),
    )
    papo("export", "run/best", "policy", "--evaluation", "evaluation")
    card = (tmp_path / "policy" / "README.md").read_text("utf-8")
    assert re.search(r"\| local \| image \| 6 \| \S+ \| [\d.]+ \[", card)
    papo("train", "model.path=policy", "data=local", f"data.path={data}", "--cfg", "job")


def test_a_package_with_a_reward_and_a_term_of_ones_own_trains(papo, tmp_path):
    papo("new", "experiment", "mine")
    own = tmp_path / "mine"
    data = pictures(tmp_path / "data")
    papo(
        *("train", "--config-dir", str(own / "conf"), "allow=[mine]", "+experiment=mine"),
        *(f"data.path={data}", "run_dir=run", *TINY, *SHORT),
        own=[own],
    )
    assert all(float(row["loss/near"]) >= 0 for row in metrics(tmp_path / "run"))


def test_a_reviewer_gets_from_the_readme_to_a_checked_claim(papo, tmp_path):
    """The commands of README, with the recorded numbers of a clone and a run as short as can be."""
    said = (REPOSITORY / "README.md").read_text("utf-8")
    assert "python scripts/check_objective.py" in said
    # Beside one's work: no output then names the clone.
    golden = (REPOSITORY / "tests" / "golden" / "papo_objective.json").read_bytes()
    (tmp_path / "papo_objective.json").write_bytes(golden)
    checked = papo("check", "objective", "papo_objective.json")
    assert re.search(r"(\d+) of \1 ", checked), checked
    papo("train", "run_dir=run", *SHORT)
    ended = json.loads((tmp_path / "run" / "result.json").read_text())
    assert ended["evaluation"].keys() == {"before", "after"}
    papo("report", "run")
    assert (tmp_path / "run" / "report.html").is_file()
