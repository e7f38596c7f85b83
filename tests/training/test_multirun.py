"""The table at the end of a multirun, from what its jobs left."""

import io
import json

from rich.console import Console

from papo.commands.multirun import jobs_below, jobs_table


def write(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def finished(overrides, accuracy):
    return {
        "status": "finished",
        "overrides": overrides,
        "metrics": {"rollout_step": 60.0, "reward/mean": 0.812},
        "evaluation": {"after": {"counter-prior": {"accuracy": {"value": accuracy}}}},
    }


def test_every_job_has_a_line_also_one_that_was_no_run_yet(tmp_path):
    for number in (0, 2, 10):
        overrides = ["run_dir=x", f"seed={number}"]
        write(tmp_path / str(number), "result.json", finished(overrides, number / 20))
    write(tmp_path / "1", "failure.json", {"error": "no", "overrides": ["run_dir=x", "seed=1"]})
    write(tmp_path / "arm" / "seed_1", "result.json", {"status": "interrupted", "evaluation": 3})
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "result.json").write_text("{")
    jobs = jobs_below(tmp_path)
    assert list(jobs) == ["arm/seed_1", "0", "1", "2", "3", "10"]
    out = io.StringIO()
    Console(file=out, width=160).print(jobs_table(tmp_path, jobs))
    lines = {line.split()[1]: line for line in out.getvalue().splitlines() if line[:1] == "│"}
    assert [word in lines["10"] for word in ("seed=10", "finished", "60", "0.812", "50.0")] == (
        [True] * 5
    )
    assert "failed" in lines["1"]
    assert "interrupted" in lines["arm/seed_1"]
    assert "unknown" in lines["3"]


def test_what_all_jobs_set_alike_is_left_out(tmp_path):
    for number in (0, 1):
        write(
            tmp_path / str(number),
            "result.json",
            finished(["training.num_rollouts=60", f"seed={number}"], 0.5),
        )
    out = io.StringIO()
    Console(file=out, width=160).print(jobs_table(tmp_path, jobs_below(tmp_path)))
    assert "seed=1" in out.getvalue()
    assert "training.num_rollouts" not in out.getvalue()
