"""`papo check run`: the table of a run's terms, from its folder alone."""

import csv
import json
import os
import subprocess
import sys

import pytest

from papo.commands import check_run
from papo.commands.command_line import variables

NAN = float("nan")
SOUND = {
    "gradient/surrogate/norm": [0.2, NAN, 0.4],
    "gradient/surrogate/cosine": [1.0, NAN, 1.0],
    "gradient/surrogate/clamped": [0.0, NAN, 0.1],
    "gradient/surrogate/top_share": [0.03, NAN, 0.04],
    "gradient/perception_kl/norm": [0.1, NAN, 0.3],
    "gradient/perception_kl/cosine": [NAN, NAN, -0.5],
    "gradient/perception_kl/clamped": [0.0, NAN, 0.0],
    "gradient/perception_kl/top_share": [NAN, NAN, 0.5],
    "policy/masked_preferred_fraction": [0.4, 0.3, 0.2],
}


def folder(path, curves, faults=()):
    path.mkdir()
    with (path / "metrics.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rollout_step", *curves])
        for step, values in enumerate(zip(*curves.values(), strict=True), start=1):
            writer.writerow([step, *values])
    if faults:
        lines = "".join(json.dumps(fault) + "\n" for fault in faults)
        (path / "faults.jsonl").write_text(lines, "utf-8")
    return path


def run(monkeypatch, capsys, path):
    monkeypatch.setattr(sys, "argv", ["papo check run", str(path)])
    code = check_run.main()
    out, err = capsys.readouterr()
    return code, out, err


def test_a_row_has_the_first_the_median_and_the_last_measure(tmp_path, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, folder(tmp_path / "run", SOUND))
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["surrogate", "norm", "0.2", "0.3", "0.4"] in rows
    assert ["perception_kl", "norm", "0.1", "0.2", "0.3"] in rows
    assert ["cosine", "-0.5", "-0.5", "-0.5"] in rows
    assert ["masked", "preferred", "0.4", "0.3", "0.2"] in rows
    assert "of 2 measures" in out
    assert out.count("nothing speaks against it") == 2


@pytest.mark.parametrize(
    ("changed", "said", "code"),
    [
        ({"gradient/perception_kl/norm": [0.0, NAN, 0.0]}, "no gradient in any measure", 1),
        (
            {"gradient/perception_kl/norm": [0.1, NAN, 2.0]},
            "its gradient is 5 times the surrogate's",
            0,
        ),
        (
            {"gradient/perception_kl/norm_vision": [0.06, NAN, 0.06]},
            "whose part of its norm fell from 0.6 to 0.2",
            0,
        ),
        (
            {"gradient/perception_kl/clamped": [0.0, NAN, 0.75]},
            "75 % of the tokens are at a clamp",
            0,
        ),
        ({"gradient/perception_kl/top_share": [0.1, NAN, 0.95]}, "95 % of its pull comes from", 0),
    ],
)
def test_each_verdict_is_said_of_its_term(changed, said, code, tmp_path, monkeypatch, capsys):
    found, out, _ = run(monkeypatch, capsys, folder(tmp_path / "run", {**SOUND, **changed}))
    assert found == code
    assert said in out
    assert out.count("nothing speaks against it") == 1


def test_a_reference_kl_that_was_measured_at_the_reference_alone_is_no_fault(
    tmp_path, monkeypatch, capsys
):
    curves = {name: values[:1] for name, values in SOUND.items()}
    curves["gradient/perception_kl/norm"] = curves["gradient/perception_kl/norm_vision"] = [0.0]
    curves["gradient/of_another_callback"] = [1.0]
    code, out, _ = run(monkeypatch, capsys, folder(tmp_path / "run", curves))
    assert code == 0
    assert out.count("nothing speaks against it") == 2


def test_one_measure_of_many_is_no_verdict(tmp_path, monkeypatch, capsys):
    """A large gradient of the last few prompts happens in sound runs, too."""
    curves = {name: [*values[::2], *values[::2]] for name, values in SOUND.items()}
    curves["gradient/perception_kl/norm"] = [0.1, 9.0, 0.1, 0.3]
    _, out, _ = run(monkeypatch, capsys, folder(tmp_path / "run", curves))
    assert out.count("nothing speaks against it") == 2


def test_faults_of_the_run_are_repeated(tmp_path, monkeypatch, capsys):
    fault = {"rollout_step": 1, "key": "masking", "says": "the view changes nothing"}
    code, out, _ = run(monkeypatch, capsys, folder(tmp_path / "run", SOUND, [fault]))
    assert code == 1
    assert "rollout 1: masking: the view changes nothing." in out


def test_a_run_that_stopped_before_its_first_update_says_why(tmp_path, monkeypatch, capsys):
    path = folder(tmp_path / "run", SOUND, [{"rollout_step": 1, "key": "masking", "says": "no"}])
    (path / "metrics.csv").unlink()
    code, out, _ = run(monkeypatch, capsys, path)
    assert (code, out) == (1, "rollout 1: masking: no.\n")


@pytest.mark.parametrize("text", ["rollout_step,reward/mean\n1,0.5\n", "", None])
def test_a_run_that_measured_nothing_is_told_so(text, tmp_path, monkeypatch, capsys):
    path = folder(tmp_path / "run", SOUND)
    file = path / "metrics.csv"
    file.unlink() if text is None else file.write_text(text, "utf-8")
    code, out, err = run(monkeypatch, capsys, path)
    assert (code, out) == (2, "")
    assert "no measured gradients" in err


def test_damaged_lines_are_left_out_and_said(tmp_path, monkeypatch, capsys):
    path = folder(tmp_path / "run", SOUND)
    (path / "faults.jsonl").write_text("{}\n", "utf-8")
    with (path / "metrics.csv").open("a") as file:
        file.write("4,0.1")
    code, out, err = run(monkeypatch, capsys, path)
    assert code == 0
    assert "of 2 measures" in out
    assert "Damaged lines left out of faults.jsonl: 1." in err
    assert "Damaged rows left out of metrics.csv: 1." in err


def test_it_needs_no_torch(tmp_path):
    path = folder(tmp_path / "run", SOUND)
    code = (
        "import sys; from papo.commands.command_line import main; "
        f"code = main(['check', 'run', {str(path)!r}]); sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ([0.0] * 12, "collapse: no alarm in 12 rollouts"),
        # 0.4 is 13.3 scales of 0.03; 10 is the most of a rollout, and the limit above that.
        (
            [0.0] * 10 + [0.4] * 2,
            "collapse: alarm at rollout 12, by badly formatted (20, limit 12.5)",
        ),
    ],
)
@pytest.mark.parametrize("terms", [True, False])
def test_it_says_when_the_detector_would_have_rung(
    tmp_path, monkeypatch, capsys, form, said, terms
):
    recorded = {name: values * 4 for name, values in SOUND.items()} if terms else {}
    run_folder = folder(tmp_path / "run", {**recorded, "reward/error_format": form})
    code, out, _ = run(monkeypatch, capsys, run_folder)
    assert code == (0 if terms else 2)
    assert out.splitlines()[-1] == said


def test_a_run_without_what_the_detector_reads_gets_no_verdict(tmp_path, monkeypatch, capsys):
    _, out, _ = run(monkeypatch, capsys, folder(tmp_path / "run", SOUND))
    assert "collapse" not in out
