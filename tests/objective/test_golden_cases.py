"""Parity with the authors' own functions, and with one case small enough to do by hand."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "check_objective.py"
GOLDEN = ROOT / "tests" / "golden" / "papo_objective.json"


@pytest.fixture
def main(monkeypatch, capsys):
    """Runs the script in this process; returns its exit status and what it printed."""
    from papo.commands import check_objective

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["check_objective.py", *map(str, arguments)])
        status, printed = check_objective.main(), capsys.readouterr()
        sys.stderr.write(printed.err)
        return status, printed.out

    return run


def hand_made_case():
    """Two responses, three sampled tokens, every number chosen so that paper and pencil do.

    A = +-(1/2) / (1/sqrt 2 + 1e-6), as rewards 1, 0 have mean 1/2 and unbiased std 1/sqrt 2.
    Response 0 (A > 0), two tokens: ratio 1 (p = old), and ratio 2, clipped at 1.3.
    Response 1 (A < 0), one token: ratio 4, the dual clip at 3 binds.
    Reference: log-ratio 0 everywhere but token (0, 0), r = 2:  k3 = 2 - 1 - log 2.
    Masked:    log-ratio 0 everywhere but token (0, 1), r = 1/2: k3 = 1/2 - 1 + log 2.
    Token means divide by 3 + 1e-8. Log-probs are powers of two times 0.5.
    """
    log2 = math.log(2)
    advantage = 0.5 / (math.sqrt(0.5) + 1e-6)
    count = 3 + 1e-8
    half, quarter, eighth = -log2, -2 * log2, -3 * log2
    policy_loss = (-advantage - 1.3 * advantage + 3 * advantage) / count
    kl_ref = (1 - log2) / count
    kl_prcp = (log2 - 0.5) / count
    entropy = -(half + half + half) / count
    entropy_masked = -(half + quarter + half) / count
    gradients = [
        # surrogate -A (ratio 1); beta (1 - r), r = 2; eta_ori pushes log p up by -eta
        [(-advantage + 0.01 * (1 - 2) - 0.03) / count,
         # clipped: no surrogate; -gamma (1 - r), r = 1/2
         (-0.02 * (1 - 0.5) - 0.03) / count],
        # dual-clipped
        [-0.03 / count, 0.0],
    ]  # fmt: skip
    return {
        "name": "by_hand",
        "seed": 0,
        "group_size": 2,
        "config": {
            "clip_low": 0.2, "clip_high": 0.3, "clip_dual": 3.0, "avg": "token", "beta": 0.01,
            "gamma": 0.02, "eta_ori": 0.03, "eta_mask": 0.03, "recompute": False,
        },
        "inputs": {
            "log_probs": [[half, half], [half, 0.0]],
            "old_log_probs": [[half, quarter], [eighth, 0.0]],
            "ref_log_probs": [[0.0, half], [half, 0.0]],
            "masked_log_probs": [[half, quarter], [half, 0.0]],
            "response_mask": [[1.0, 1.0], [1.0, 0.0]],
            "rewards": [1.0, 0.0],
            "group_ids": [0, 0],
        },
        "expected": {
            "policy_loss": policy_loss,
            "kl_ref": kl_ref,
            "kl_prcp": kl_prcp,
            "entropy_original": entropy,
            "entropy_masked": entropy_masked,
            "loss": policy_loss + 0.01 * kl_ref - 0.02 * kl_prcp
            + 0.03 * entropy + 0.03 * entropy_masked,
            "clipfrac_high": 1 / count,
            "clipfrac_low": 1 / count,
            # mean of log old - log p: 0, -log 2, -2 log 2
            "ppo_kl": -3 * log2 / count,
            "advantages": [advantage, -advantage],
            "grad_log_probs": gradients,
            "grad_masked_log_probs": None,
        },
    }  # fmt: skip


@pytest.fixture
def case(tmp_path):
    """A hand-made case and a function that writes it where the script can read it."""
    made = hand_made_case()
    path = tmp_path / "golden.json"

    def write():
        path.write_text(json.dumps([made]))
        return path

    return made, write


def test_every_golden_case_of_the_authors_is_reproduced_from_any_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(GOLDEN)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "52 of 52 cases within 1e-09"
    assert list(tmp_path.iterdir()) == []


def test_the_hand_made_case_is_reproduced_up_to_the_float32_of_the_kls(main, case):
    made, write = case

    # The one thing pencil and paper do not do: the official code computes its KLs in float32.
    def k3_float32(log_q, log_p):
        difference = torch.tensor(log_q).float() - torch.tensor(log_p).float()
        return (difference.exp() - difference - 1).item()

    count, expected = 3 + 1e-8, made["expected"]
    for name, log_q, log_p, weight in (
        ("kl_ref", 0.0, -math.log(2), 0.01),
        ("kl_prcp", -2 * math.log(2), -math.log(2), -0.02),
    ):
        rounded = k3_float32(log_q, log_p) / count
        assert abs(rounded - expected[name]) < 1e-7
        expected["loss"] += weight * (rounded - expected[name])
        expected[name] = rounded
    status, printed = main(write())
    assert status == 0, printed


@pytest.mark.parametrize(
    "spoil",
    [
        lambda made: made["expected"].update(kl_prcp=made["expected"]["kl_prcp"] + 1e-6),
        lambda made: made["expected"].update(loss=float("nan")),
        lambda made: made["expected"].pop("kl_prcp"),
        lambda made: made["expected"].pop("grad_log_probs"),
        lambda made: made["expected"].update(surprise=1.0),
        lambda made: made["expected"].update(grad_masked_log_probs=[[0.1, 0.0], [0.0, 0.0]]),
        lambda made: made["expected"].update(advantages=[1.0]),
        lambda made: made["config"].update(clip_middle=0.2),
        lambda made: made["config"].pop("beta"),
        lambda made: made["config"].update(avg="mean"),
        lambda made: made["config"].update(gamma=-0.02),
        lambda made: made["inputs"].pop("ref_log_probs"),
        lambda made: made["inputs"].update(rewards=[float("nan"), 0.0]),
        lambda made: made["inputs"].update(response_mask=[[1.0, 0.5], [1.0, 0.0]]),
        lambda made: made["inputs"].update(group_ids=[0, 1]),
        lambda made: made.pop("group_size"),
    ],
)
def test_the_check_fails_loudly(main, case, spoil):
    made, write = case
    spoil(made)
    status, printed = main(write())
    assert status == 1
    assert "FAIL" in printed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "nowhere.json"),
        (b"[]", "holds no list of cases"),
        (b"52 cases", "is not JSON"),
        (b"\xff\xfe[\x00]\x00", "is not JSON"),
    ],
)
def test_a_file_without_cases_is_no_success_and_named_in_one_line(
    main, tmp_path, capsys, content, message
):
    file = tmp_path / "nowhere.json"
    if content is not None:
        file.write_bytes(content)
    assert main(file) == (2, "")
    assert_one_line(capsys.readouterr().err, str(file), message, "tests/golden/papo_objective.json")


def assert_one_line(printed, *parts):
    assert printed.count("\n") == 1, printed
    for part in parts:
        assert part in printed


def test_without_a_file_the_shipped_one_is_named(main, capsys):
    assert main() == (2, "")
    assert_one_line(capsys.readouterr().err, "no file", "tests/golden/papo_objective.json")
    assert GOLDEN.is_file()


def test_help_names_the_shipped_cases(main, capsys):
    with pytest.raises(SystemExit):
        main("--help")
    assert "tests/golden/papo_objective.json" in capsys.readouterr().out
