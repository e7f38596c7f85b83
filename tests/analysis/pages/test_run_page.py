import csv
import json
import re
import runpy
import sys
from html import unescape
from pathlib import Path

import pytest
from analysis.chromium import PHONE
from PIL import Image
from training.command import run_command

from papo.analysis.pages.rollout_view import MAX_PICTURE_SIDE, perception_level, read_picture
from papo.analysis.pages.run import build_run_page
from papo.statistics import COLLAPSE_RULE, judge_collapse
from papo.storage.training_run import read_training_run

GOLDEN = Path(__file__).parents[2] / "golden"

HOSTILE = (
    '</script></title><img src=x onerror="document.title=666"><script>document.title=666</script>'
)


def record(step=1, problem="p1", **changes):
    return {
        "rollout_step": step,
        "problem": problem,
        "prompt": "<image> How long is AB?",
        "answer": "12",
        "images": [f"rollouts/{step:06d}_0_0.png"],
        "masked_images": [f"rollouts/{step:06d}_0_masked_0.png"],
        "response": "AB is 12",
        "reward": 1.0,
        "correct": True,
        "components": {"accuracy": 1.0, "error_perception": 0.0},
        "token_ids": [5, 6, 7],
        "tokens": ["AB", " is", " 12"],
        "perception_kl": [0.0, 0.03, 6.5],
        **changes,
    }


def write_run(
    folder, *, steps=20, records=None, result="finished", metrics=None, overrides=("seed=3",)
):
    """A run folder as train.py leaves it, with two rows of pictures."""
    (folder / "rollouts").mkdir(parents=True)
    run = {"started": "2026-01-02T03:04:05+00:00", "overrides": list(overrides), "seed": 3}
    run |= {"git_commit": "0123abcd", "versions": {"torch": "2.13.0"}}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "config.json").write_text(json.dumps({"training": {"num_rollouts": 20}}))
    (folder / "config.yaml").write_text("objective:\n  gamma: 0.0123\n")
    metrics = metrics or {
        "reward/mean": lambda step: step / 20,
        "reward/correct": lambda step: step / 20,
        "reward/accuracy": lambda step: step / 20,
        "reward/error_perception": lambda step: 1 - step / 20,
        "reward/correct_but_misread": lambda step: 0.0,
        "loss/perception_kl": lambda step: 0.01 * step,
        "policy/sampled_masked_entropy": lambda step: 0.5,
    }
    write_csv(folder / "metrics.csv", steps, metrics)
    phases = dict.fromkeys(("rollout", "reward", "score", "update"), lambda step: 0.5)
    write_csv(folder / "timings.csv", steps, phases)
    records = [record(1), record(20, "p2")] if records is None else records
    (folder / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    for step in {row["rollout_step"] for row in records}:
        for name in ("0_0", "0_masked_0"):
            Image.new("RGB", (900, 600), "red").save(folder / f"rollouts/{step:06d}_{name}.png")
    if result:
        share = {"value": 0.25, "low": 0.125, "high": 0.5}
        report = {"num_problems": 9, "num_responses": 4, "accuracy": share}
        report["shares"] = {"perception": {"value": 0.75, "low": 0.5, "high": 0.875}}
        values = {"status": result, "evaluation": {"before": {"lab": report}}}
        if result == "failed":
            values = {"status": result, "error": "NonFiniteLoss: loss/total is not finite"}
        (folder / "result.json").write_text(json.dumps(values))
    return folder


def write_csv(path, steps, columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rollout_step", *columns])
        for step in range(1, steps + 1):
            writer.writerow([step, *(value(step) for value in columns.values())])


@pytest.fixture
def run_folder(tmp_path):
    return write_run(tmp_path / "run")


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<style>.*?</style>", "", page)))


def test_a_page_tells_of_every_part_of_a_run(run_folder):
    page = build_run_page(run_folder)
    text = text_of(page)
    assert "Finished: 20 of 20 rollouts." in text
    assert "gamma: 0.0123" in page
    assert "seed=3" in text
    assert "0123abcd" in text
    # The first and the last tenth are two rollouts each: means of 1/20, 2/20 and of 19/20, 20/20.
    assert "Reward 0.075 in the first tenth of the rollouts, 0.975 in the last" in text
    assert "25.0 [12.5, 50.0]" in text
    assert "40.0 s of training" in text
    assert page.count("data:image/") == 4
    for section in ("before-and-after", "curves", "collapse", "errors", "rollouts", "timings"):
        assert f'<h2 id="{section}">' in page
        assert f'href="#{section}"' in page


@pytest.mark.parametrize(
    ("arm", "verdict"), [("no_cure", "Collapsed at rollout"), ("demo", "No collapse.")]
)
def test_the_verdict_on_collapse_is_that_of_the_one_rule(tmp_path, arm, verdict):
    recorded = json.loads((GOLDEN / "collapse_curves.json").read_text("utf-8"))["runs"]
    curves = next(run["curves"] for run in recorded if run["arm"] == arm)
    folder = write_run(tmp_path / "run")
    columns = {name: lambda step, of=values: of[step - 1] for name, values in curves.items()}
    write_csv(folder / "metrics.csv", len(next(iter(curves.values()))), columns)
    text = text_of(build_run_page(folder))
    assert verdict in text
    assert COLLAPSE_RULE in text
    found = judge_collapse(curves)
    assert (
        f"{found.fall:.3g} 2.9 3 perception KL, nats per token {found.perception_kl:.3g} 1.3 1"
        in text
    )


def titles_of(page):
    return [
        unescape(title).split(" <span")[0]
        for title in re.findall(r'class="chart"><figcaption>(.*?)</figcaption>', page)
    ]


def test_what_leads_is_before_and_after_and_what_matters(run_folder):
    page = build_run_page(run_folder)
    titles = titles_of(page.split('id="collapse"')[0])
    assert titles == [
        "lab",
        "Reward: right answers, share of responses",
        "Perception KL, nats per token",
        "Entropy, nats per token",
    ]
    assert "limit of a collapse" in page


def test_no_chart_is_drawn_twice(tmp_path):
    names = ("reward/mean", "reward/correct", "resample/drawn_correct")
    columns = {name: lambda step: step / 20 for name in names}
    drawn = {
        "loss/perception_kl": lambda step: 0.01 * step,
        "policy/perception_kl_variance": lambda step: 2_000.0 if step == 9 else 0.1 * step,
        "update/grad_norm": lambda step: 0.3 + 0.01 * step,
        "validation/accuracy": lambda step: step / 40 if step % 10 == 0 else "nan",
    }
    page = build_run_page(write_run(tmp_path / "run", metrics=columns | drawn))
    titles = titles_of(page)
    assert len(set(titles)) == len(titles)
    [accuracy] = re.findall(r'aria-label="(Reward: right answers[^"]*)"', page)
    assert "trained on from 0.05 to 1" in accuracy
    assert "held out from 0.25 to 0.5" in accuracy
    assert "all drawn" not in accuracy, "what was trained on is what was drawn"
    assert "Variance of the perception KL over tokens <span" in page.replace("&#39;", "'")


def test_a_reward_that_is_not_its_accuracy_has_a_chart_of_its_own(tmp_path):
    columns = {"reward/mean": lambda step: 0.9 * step, "reward/correct": lambda step: step / 20}
    titles = titles_of(build_run_page(write_run(tmp_path / "run", metrics=columns)))
    assert "Reward" in titles
    assert "Right answers, share of responses" in titles


def test_what_never_moves_is_said_and_not_drawn(tmp_path):
    columns = {"reward/mean": lambda step: step, "response/finished": lambda step: 1.0}
    page = build_run_page(write_run(tmp_path / "run", metrics=columns))
    assert "Responses that ended by themselves, share: 1" in page
    assert "Responses that ended by themselves, share" not in titles_of(page)


def test_the_signs_of_a_collapse_stand_beside_sound_runs_and_their_limit(run_folder):
    page = build_run_page(run_folder)
    # The highest tenth has a KL of (0.19 + 0.20) / 2 nats; sound runs reach 1.3 of 1.
    assert "perception KL this run 0.195, sound runs of the lab, at most 1.3" in page


@pytest.mark.parametrize("rang", [(), (7, 9)])
def test_an_alarm_of_the_safeguard_stands_beside_the_verdict(tmp_path, rang):
    folder = write_run(tmp_path / "run")
    columns = {"safeguard/alarm": lambda step: float(step in rang)}
    write_csv(folder / "metrics.csv", 20, columns)
    said = re.findall(r"safeguard rang first at rollout \d+", build_run_page(folder))
    assert said == ["safeguard rang first at rollout 7"] * bool(rang)


def test_every_token_says_and_shows_its_perception_kl(run_folder):
    page = build_run_page(run_folder)
    assert '<span class="k0" title="0 nats">AB</span>' in page
    assert '<span class="k1" title="0.03 nats"> is</span>' in page
    assert '<span class="k5" title="6.5 nats"> 12</span>' in page
    assert "Mean 2.18 nats over 3 tokens; most at: “12” 6.5, “is” 0.03" in page


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (0.0, 0),
        (0.01, 0),
        (0.011, 1),
        (0.2, 2),
        (0.21, 3),
        (4.0, 4),
        (1e9, 5),
        (float("inf"), 5),
        (float("nan"), 0),
    ],
)
def test_levels_follow_the_bounds(value, level):
    assert perception_level(value) == level


def test_a_run_that_failed_or_has_not_ended_says_so(tmp_path):
    failed = build_run_page(write_run(tmp_path / "failed", result="failed", steps=7))
    assert "Failed after 7 of 20 rollouts: NonFiniteLoss: loss/total is not finite" in failed
    running = build_run_page(write_run(tmp_path / "running", result=None, steps=7))
    assert "Unfinished: 7 of 20 rollouts" in running


def test_a_run_before_its_first_rollout_has_a_page(tmp_path):
    folder = write_run(tmp_path / "run", result=None)
    for name in ("metrics.csv", "timings.csv", "rollouts.jsonl", "config.yaml", "config.json"):
        (folder / name).unlink()
    text = text_of(build_run_page(folder))
    assert "Unfinished: 0 rollouts" in text
    assert "No rollout has finished yet" in text
    assert "recorded no rollouts" in text


def test_half_a_row_is_left_out_and_said(run_folder):
    for name in ("metrics.csv", "rollouts.jsonl"):
        with (run_folder / name).open("a") as file:
            file.write('21,"0.')
    with (run_folder / "rollouts.jsonl").open("a") as file:
        file.write('\n{"rollout_step": 1}\n[]\n')
    text = text_of(build_run_page(run_folder))
    assert "Damaged rows left out of metrics.csv: 1." in text
    assert "Damaged lines left out of rollouts.jsonl: 3." in text
    assert "Finished: 20 of 20" in text


@pytest.mark.parametrize("evaluation", [[1], {"before": 3}, {"before": {"lab": {}}}, "x"])
def test_a_damaged_evaluation_is_left_out_and_said(run_folder, evaluation):
    (run_folder / "result.json").write_text(
        json.dumps({"status": "finished", "evaluation": evaluation})
    )
    assert "evaluation in result.json is damaged" in build_run_page(run_folder)


def test_values_that_are_not_finite_are_gaps(tmp_path):
    columns = {
        "reward/mean": lambda step: "nan" if step < 5 else step,
        "update/grad_norm": lambda s: "inf",
    }
    text = build_run_page(write_run(tmp_path / "run", metrics=columns))
    assert "4 values missing or not finite" in text
    assert "norm has no finite value" in text


def test_a_run_without_a_masked_view_shows_its_responses_uncoloured(tmp_path):
    records = [record(masked_images=[], perception_kl=None)]
    page = build_run_page(write_run(tmp_path / "run", records=records))
    assert "AB is 12" in page
    assert "Not coloured: no masked view was scored." in page
    old = {k: v for k, v in record().items() if k not in ("tokens", "components")}
    page = build_run_page(write_run(tmp_path / "old", records=[old]))
    assert "the text of its tokens is not recorded" in page


def test_first_last_best_and_worst_prompts_are_shown_once(tmp_path):
    rewards = [0.5, 0.5, 0.0, 0.5, 1.0, 0.0, 0.5, 0.5, 1.0, 0.5]
    records = [
        record(step, f"p{step}", reward=reward)
        for step, reward in enumerate(rewards, start=1)
        for _ in range(3)
    ]
    run = read_training_run(write_run(tmp_path / "run", records=records), groups_of_each_kind=1)
    shown = [(chosen.group.rollout_step, chosen.reasons) for chosen in run.groups]
    assert shown == [(1, ("first",)), (6, ("worst",)), (9, ("best",)), (10, ("last",))]
    assert [len(chosen.group.responses) for chosen in run.groups] == [3, 3, 3, 3]


def test_a_very_long_run_and_responses_make_a_small_page(tmp_path):
    long = record(tokens=["x" * 50] * 100_000, perception_kl=[1.0] * 100_000)
    records = [
        {**long, "problem": f"p{k}"}
        if k % 2
        else record(1, f"p{k}", response="y" * 100_000, tokens=None)
        for k in range(8)
    ]
    folder = write_run(tmp_path / "run", steps=3_000, records=records)
    noise = Image.effect_noise((2_000, 2_000), 90).convert("RGB")
    noise.save(folder / "rollouts/000001_0_0.png")
    page = build_run_page(folder)
    assert len(page) < 5_000_000
    assert "99,880 more tokens are not shown" in page
    assert "94,000 more characters" in page


def test_pictures_are_read_from_the_run_folder_only(run_folder, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (run_folder / "rollouts/link.png").symlink_to(tmp_path / "secret.png")
    (run_folder / "rollouts/fake.png").write_text("<svg onload=alert(1)>")
    for path in (
        *("../secret.png", str(tmp_path / "secret.png"), "rollouts/link.png"),
        *("rollouts/fake.png", "rollouts/none.png", "rollouts", "a\0b"),
    ):
        assert read_picture(run_folder, path) is None, path
    assert read_picture(run_folder, "rollouts/000001_0_0.png") is not None


def test_pictures_are_shrunk_and_carry_nothing_but_pixels(tmp_path):
    import io

    from PIL.PngImagePlugin import PngInfo

    extra = PngInfo()
    extra.add_text("comment", "hidden text")
    Image.new("RGB", (900, 600)).save(tmp_path / "a.png", pnginfo=extra)
    encoded = read_picture(tmp_path, "a.png")
    assert encoded is not None
    assert b"hidden text" not in encoded
    assert Image.open(io.BytesIO(encoded)).size == (MAX_PICTURE_SIDE, 299)


def test_text_from_the_run_never_becomes_markup(browser, tmp_path):
    records = [
        record(
            **dict.fromkeys(("problem", "prompt", "answer", "response"), HOSTILE),
            tokens=[HOSTILE, "\u202e", "x" * 3_000],
            components={f"error_{HOSTILE}": 1.0},
        ),
        record(
            2, tokens=None, response=HOSTILE + "z" * 100_000, images=[HOSTILE], masked_images=[]
        ),
    ]
    folder = write_run(tmp_path / "run", records=records, overrides=[HOSTILE])
    (folder / "config.yaml").write_text(HOSTILE)
    (folder / "result.json").write_text(json.dumps({"status": "failed", "error": HOSTILE}))
    file = tmp_path / "page.html"
    file.write_text(build_run_page(folder))
    tab = browser.open(file, size=PHONE)
    assert "666" not in tab.run("document.title")
    assert tab.run("document.querySelectorAll('script, [onerror]').length") == 0
    assert tab.run("document.querySelector('.tokens span').textContent") == HOSTILE
    assert tab.faults() == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A real run, so that this page and the callbacks that write it cannot drift apart."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    outcome = run_command("callbacks.rollout_table.every_rollouts=1", f"run_dir={folder}")
    assert outcome.code == 0, outcome.stderr
    return folder


def test_a_real_run_fits_a_phone_and_can_be_read_aloud(browser, trained, tmp_path):
    page = build_run_page(trained)
    assert "damaged" not in page
    assert 'class="k' in page.split("<main")[1]
    file = tmp_path / "page.html"
    file.write_text(page)
    tab = browser.open(file, size=PHONE)
    assert tab.faults() == []


def test_the_page_has_no_faults_in_light_and_dark(browser, run_folder, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(build_run_page(run_folder))
    tab = browser.open(file)
    assert tab.faults() == []
    tab.dark()
    assert tab.faults() == []


def test_the_command_writes_the_page_or_says_why_not(
    repository, run_folder, tmp_path, monkeypatch, capsys
):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["report_run.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(repository / "scripts/report_run.py"), run_name="__main__")
        return end.value.code, capsys.readouterr()

    code, said = command(run_folder)
    assert code == 0, said.err
    assert str(run_folder / "report.html") in said.out
    assert (run_folder / "report.html").read_text() == build_run_page(run_folder)
    (tmp_path / "empty").mkdir()
    code, said = command(tmp_path / "empty", "--output", tmp_path / "page.html")
    assert code == 2
    assert "holds no training run" in said.err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("name", ["config.json", "run.json", "result.json", "metrics.csv"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"\xff\xfe\x00{", b'a,b\n"' + b"x" * 200_000]
)
def test_a_damaged_file_is_left_out_and_named_or_the_page_refused(run_folder, name, content):
    (run_folder / name).write_bytes(content)
    if name == "run.json":
        with pytest.raises(ValueError, match=r"run\.json is damaged: .* restore it"):
            build_run_page(run_folder)
        return
    page = build_run_page(run_folder)
    if name != "metrics.csv" or content.startswith(b"a,b"):
        assert f"{run_folder / name} is damaged: " in page


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        build_run_page(tmp_path / "none")
