"""masking=noise where an evaluation reads a mask, and where it cannot."""

import json

from evaluation.evaluation_command import run_evaluation


def test_the_probe_measures_it_and_the_views_of_ratios_refuse_it(tmp_path):
    refused = run_evaluation("views=vision", "masking=noise", f"run_dir={tmp_path / 'vision'}")
    assert refused.code == 1
    assert "takes a random mask; got masking=noise" in refused.stderr

    probed = run_evaluation(
        "probe=perception",
        "masking=noise",
        "num_masks=1",
        "benchmark.limit=1",
        "rollout.num_responses=1",
        f"run_dir={tmp_path / 'probe'}",
    )
    assert probed.code == 0, probed.stderr
    lines = (tmp_path / "probe" / "perception_kl.jsonl").read_text().splitlines()
    assert max(max(json.loads(line)["kl_exact"]) for line in lines) > 0.001
