"""Every job of every sweep composes, with any experiment, to the settings its arm is named after."""

import json
import re
import shlex
from functools import lru_cache, partial
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf, read_write
from training.command import SHORT, contents, result, run_command

from papo.commands import arms
from papo.commands.training.plan import make_plan
from papo.storage.published import published_results

pytestmark = pytest.mark.slow

CONF = Path(__file__).resolve().parents[2] / "conf"
# Their arms are objectives: test_sweeps_of_methods.py.
OF_METHODS = {"successors", "lab_successors", "lab_successors_tuning"}
SWEEPS = sorted({file.stem for file in (CONF / "sweep").glob("*.yaml")} - OF_METHODS)
PUBLISHED = [name for name in SWEEPS if not name.startswith("lab_")]
EXPERIMENTS = {
    "lab": (),
    "papo_geo3k": ("+experiment=papo_geo3k",),
    "papo_g_7b": ("+experiment=papo_g_7b",),
}
# Composing takes half a second a job: every arm once where it belongs, one arm with every experiment.
FAMILIES = [
    *((sweep, "lab") for sweep in SWEEPS),
    *((sweep, experiment) for sweep in PUBLISHED for experiment in ("papo_geo3k", "papo_g_7b")),
]
IN_FULL = {
    *((sweep, "lab") for sweep in SWEEPS if sweep not in PUBLISHED),
    *((sweep, "papo_g_7b") for sweep in PUBLISHED),
}

# arXiv:2507.06448v5 with the tables of its ablations: arm -> (gamma, eta_full, eta_masked), and what
# else the arm sets. Everything not named here is the experiment's.
G, D = {"clip_high": 0.3, "max_resample": 0}, {"clip_high": 0.28, "max_resample": 19, "beta": 0.0}
ARMS = {
    "gamma": {f"gamma_{g}": (g, 0.0, 0.0) for g in (0.0, 0.005, 0.01, 0.02, 0.04)},
    "mask_ratio": {f"ratio_{r}": (0.01, 0.0, 0.0, {"ratio": r}) for r in (0.4, 0.6, 0.8, 1.0)},
    "masking_strategy": {
        "random_raw": (0.01, 0.0, 0.0, {"ratio": 0.6, "grid": "raw"}),
        "random_token": (0.01, 0.0, 0.0, {"ratio": 0.6, "grid": "token"}),
        "semantic": (0.01, 0.0, 0.0, {"ratio": 0.6}),
        "semantic_policy": (0.01, 0.0, 0.0, {"ratio": 0.6}),
        "blank": (0.01, 0.0, 0.0),
    },
    "entropy": {f"full_{f}_masked_{m}": (0.02, f, m) for f in (0.0, 0.05) for m in (0.0, 0.05)},
    "entropy_weight": {f"eta_{eta}": (0.02, eta, eta) for eta in (0.01, 0.03, 0.05)},
    "no_kl_ref": {
        "grpo": (0.0, 0.0, 0.0, {"beta": 0.01}),
        "grpo_no_kl_ref": (0.0, 0.0, 0.0, {"beta": 0.0}),
        "papo_no_kl_ref": (0.01, 0.03, 0.03, {"beta": 0.0}),
    },
    "dapo_regularisation": {
        "dapo": (0.0, 0.0, 0.0, D | {"average": "token"}),
        "dapo_entropy": (0.0, 0.03, 0.0, D | {"average": "token"}),
        "papo_d": (0.01, 0.03, 0.03, D | {"average": "token"}),
    },
    "fidelity": {"official": (None,) * 3, "paper": (None,) * 3, "exact": (None,) * 3},
    "method": {
        "grpo": (0.0, 0.0, 0.0, G | {"beta": 0.01}),
        "grpo_double_entropy": (0.0, 0.05, 0.05, G | {"beta": 0.01}),
        "papo_g": (0.02, 0.0, 0.0, G | {"beta": 0.01}),
        "papo_g_double_entropy": (0.02, 0.05, 0.05, G | {"beta": 0.01}),
        "dapo": (0.0, 0.0, 0.0, D | {"average": "token", "entropy_average": "token"}),
        "papo_d": (0.01, 0.03, 0.03, D | {"average": "token", "entropy_average": "token"}),
    },
    # The lab's own: gamma of ten times the published weights, everything else as objective=lab_papo_g.
    "lab_gamma": {
        f"gamma_{g}": (g, 0.0, 0.0, {"masked_policy": "old"}) for g in (0.0, 0.05, 0.1, 0.2, 0.4)
    },
    "lab_mask_ratio": {f"ratio_{r}": (0.1, 0.12, 0.12, {"ratio": r}) for r in (0.4, 0.6, 0.8, 1.0)},
    "lab_masking_strategy": {
        name: (0.1, 0.12, 0.12)
        for name in ("random_raw", "random_token", "semantic_policy", "evidence", "control", "blank")
    },
    "lab_entropy": {
        f"full_{f}_masked_{m}": (0.1, f, m, {"masked_policy": "current"})
        for f in (0.0, 0.12)
        for m in (0.0, 0.12)
    },
    "lab_entropy_weight": {f"eta_{eta}": (0.1, eta, eta) for eta in (0.05, 0.15, 0.25)},
    "lab_no_kl_ref": {
        "grpo": (0.0, 0.0, 0.0, {"beta": 0.01}),
        "grpo_no_kl_ref": (0.0, 0.0, 0.0, {"beta": 0.0}),
        "papo_no_kl_ref": (0.1, 0.12, 0.12, {"beta": 0.0}),
    },
    "lab_dapo_regularisation": {
        "dapo": (0.0, 0.0, 0.0, D),
        "dapo_entropy": (0.0, 0.12, 0.0, D),
        "papo_d": (0.1, 0.12, 0.12, D),
    },
    "lab_collapse": {
        "grpo": (0.0, 0.0, 0.0),
        "no_cure": (0.1, 0.0, 0.0, {"masked_policy": "current"}),
        "higher_kl_ref": (0.1, 0.0, 0.0, {"beta": 0.1}),
        "single_entropy": (0.1, 0.12, 0.0),
        "double_entropy": (0.1, 0.12, 0.12),
        "clamped_kl": (0.1, 0.0, 0.0, {"perception_kl_max": 10, "kl_log_ratio_max": 20}),
        "annealed": (0.1, 0.0, 0.0, {"gamma_anneal_until": 0.5}),
        "masked_view_once": (0.1, 0.0, 0.0, {"masked_policy": "old"}),
    },
    "lab_ahead": {
        "newest": (0.1, 0.12, 0.12, {"ahead": 0, "importance_cap": None}),
        "ahead": (0.1, 0.12, 0.12, {"ahead": 1, "importance_cap": None}),
        "ahead_corrected": (0.1, 0.12, 0.12, {"ahead": 1, "importance_cap": 2.0}),
    },
    "lab_regimes": {
        "grpo": (0.0, 0.0, 0.0, {"entropy": "sampled", "masked_policy": "old"}),
        "entropy": (0.0, 0.05, 0.0, {"entropy": "exact"}),
        "papo_g": (0.05, 0.0, 0.0, {"masked_policy": "old"}),
        "papo_g_entropy": (0.05, 0.05, 0.0, {"entropy": "exact", "masked_policy": "old"}),
        "papo_g_double_entropy": (0.1, 0.12, 0.12, {"masked_policy": "current"}),
    },
    "lab_safeguard": {
        "grpo": (0.0, 0.0, 0.0, {"masked_policy": "old"}),
        "papo_g_entropy": (0.05, 0.05, 0.0, {"entropy": "exact", "perception_estimator": "k3"}),
        "papo_jsd": (0.3, 0.05, 0.0, {"entropy": "exact", "perception_estimator": "jsd"}),
    },
    "lab_method": {
        "grpo": (0.0, 0.0, 0.0, G),
        "grpo_double_entropy": (0.0, 0.12, 0.12, G),
        "papo_g_double_entropy": (0.1, 0.12, 0.12, G),
        "dapo": (0.0, 0.0, 0.0, D),
        "papo_d": (0.1, 0.12, 0.12, D),
    },
}  # fmt: skip


@lru_cache
def jobs_of(*overrides, only_first=False):
    """The configurations that `python train.py -m OVERRIDES` would start, Hydra's part included."""
    lines, composed = lines_of(*overrides)
    return [composed(line) for line in lines[: 1 if only_first else None]]


def lines_of(*overrides):
    """The overrides of each job that `python train.py -m OVERRIDES` would start, and what composes them."""
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        loader = hydra.config_loader
        config = hydra.compose_config(
            "train", list(overrides), run_mode=RunMode.MULTIRUN, with_log_configuration=False
        )
        params = OmegaConf.to_container(config.hydra.sweeper, resolve=True)["params"]
        # The command resolves these once more, before a job has its values.
        assert not any("${" in str(value) for value in params.values())
        arguments = [*(f"{key}={value}" for key, value in params.items()), *overrides]
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
        lines = BasicSweeper.split_arguments(parsed, None)[0]
        return lines, partial(loader.load_sweep_config, config)


@pytest.fixture
def hydra_config(monkeypatch):
    """Stands for the job that is running: some settings are named after its choices."""

    def set_to(job):
        HydraConfig.instance().set_config(job)
        plain = OmegaConf.masked_copy(job, [key for key in job if key != "hydra"])
        arms.apply_arm(plain)
        return plain

    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    return set_to


def published_row(path):
    rows = published_results()
    for key in path.split("/"):
        rows = rows[key if key in rows else float(key)]
    return rows


def test_every_sweep_of_the_issue_is_there_and_checked():
    assert set(SWEEPS) == set(ARMS)
    assert set(PUBLISHED) == {
        *("gamma", "mask_ratio", "masking_strategy", "entropy", "entropy_weight", "no_kl_ref"),
        *("dapo_regularisation", "fidelity", "method"),
    }


@pytest.mark.parametrize(("sweep", "experiment"), FAMILIES)
def test_every_job_makes_a_plan_with_the_settings_of_its_arm(sweep, experiment, hydra_config):
    in_full = (sweep, experiment) in IN_FULL
    jobs = jobs_of(*EXPERIMENTS[experiment], f"+sweep={sweep}", "seed=7", only_first=not in_full)
    assert [job.seed for job in jobs] == [7] * (len(ARMS[sweep]) if in_full else 1)
    arms = []
    for job in jobs:
        folder = job.hydra.sweep.dir
        assert folder == f"outputs/sweeps/{sweep}-{experiment}"
        config = hydra_config(job)
        arm = config.sweep.arm
        arms.append(arm)
        assert job.hydra.sweep.subdir == f"{arm}/seed_7"
        gamma, eta_full, eta_masked, *more = ARMS[sweep][arm]
        expected = {"gamma": gamma, "eta_full": eta_full, "eta_masked": eta_masked}
        expected |= more[0] if more else {}
        found = {
            **config.fidelity,
            **config.objective,
            "max_resample": config.training.max_resample,
            "ahead": config.rollout.get("ahead"),
            **{key: config.masking[key] for key in ("ratio", "grid") if key in config.masking},
        }
        assert expected == {
            key: found[key] if value is not None else None for key, value in expected.items()
        }, arm
        assert config.resume is True
        plan = make_plan(config)
        assert plan.settings.max_resample == config.training.max_resample
        weights = plan.objective.weights(progress=0.0)
        perception = [weights[name] for name in ("perception_kl", "entropy", "masked_entropy")]
        objective = config.objective
        assert perception == [-objective.gamma, objective.eta_full, objective.eta_masked], arm
        if hasattr(plan.reward, "close"):
            plan.reward.close()
    assert set(arms) == set(ARMS[sweep]) or not in_full


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_without_multirun_is_refused_with_the_command_that_is_meant(sweep, hydra_config):
    job = jobs_of(f"+sweep={sweep}", "seed=7", only_first=(sweep, "lab") not in IN_FULL)[0].copy()
    # A single run composes the same choices, and nothing of hydra.sweeper.params.
    with read_write(job.hydra):
        job.hydra.mode = RunMode.RUN
    with pytest.raises(ValueError, match=rf"\+sweep={sweep} .* python .* -m "):
        hydra_config(job)


def test_nothing_is_trained_under_the_name_of_an_arm(tmp_path):
    overrides = ("+sweep=lab_gamma", f"run_dir={tmp_path}", f"hydra.sweep.dir={tmp_path}")
    outcome = run_command(*overrides)
    assert outcome.code == 1
    [line] = outcome.stderr.splitlines()
    assert shlex.join(("python", "train.py", "-m", *SHORT, *overrides)) in line
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("sweep", SWEEPS)
def test_published_rows_exist_and_belong_to_arms(sweep, hydra_config):
    in_full = (sweep, "lab") in IN_FULL
    config = hydra_config(jobs_of(f"+sweep={sweep}", "seed=7", only_first=not in_full)[0])
    known = [arm for arm in config.sweep.published if arm in ARMS[sweep]]
    assert known or sweep in ("fidelity", "lab_ahead")
    for arm in known:
        for path in config.sweep.published[arm]:
            assert published_row(path)


def test_published_values_stand_beside_the_arms_that_have_them():
    results = published_results()["ablations"]
    for sweep, prefix in (
        ("gamma", "gamma_"),
        ("mask_ratio", "ratio_"),
        ("entropy_weight", "eta_"),
    ):
        values = {float(arm.removeprefix(prefix)) for arm in ARMS[sweep]} - {0.0}
        assert values == {key for key in results[sweep] if key != "grpo"}


def test_seeds_and_settings_of_the_command_line_win_over_those_of_the_sweep():
    jobs = jobs_of("+sweep=gamma", "seed=5,6", "objective.gamma=0.3", "training.num_rollouts=10")
    assert [(job.sweep.arm, job.seed, job.training.num_rollouts) for job in jobs] == [
        ("gamma_0.3", 5, 10),
        ("gamma_0.3", 6, 10),
    ]


def test_every_arm_and_seed_has_a_folder_of_its_own_and_keeps_it():
    overrides = ("+sweep=fidelity", "seed=1,2")
    first = [(job.hydra.sweep.dir, job.hydra.sweep.subdir) for job in jobs_of(*overrides)]
    jobs_of.cache_clear()
    assert first == [(job.hydra.sweep.dir, job.hydra.sweep.subdir) for job in jobs_of(*overrides)]
    assert len(set(first)) == 3 * 2


def test_the_order_of_sweep_and_experiment_does_not_matter(hydra_config):
    first, second = (
        hydra_config(jobs_of(*overrides, "seed=7", "sweep.arm=papo_d", only_first=True)[0])
        for overrides in (
            ("+sweep=method", "+experiment=papo_g_7b"),
            ("+experiment=papo_g_7b", "+sweep=method"),
        )
    )
    for group in ("objective", "masking", "model", "training"):
        assert first[group] == second[group]
    assert first.objective.gamma == 0.01


def test_every_arm_reaches_its_run_through_the_command(tmp_path):
    swept = run_command(
        "+sweep=lab_no_kl_ref",
        "seed=1",
        "training.num_rollouts=1",
        "evaluation.num_problems=1",
        f"hydra.sweep.dir={tmp_path}",
        multirun=True,
    )
    assert swept.code == 0, swept.stderr
    for arm, (gamma, eta_full, eta_masked, more) in ARMS["lab_no_kl_ref"].items():
        objective = OmegaConf.load(tmp_path / arm / "seed_1" / "config.yaml").objective
        expected = {"gamma": gamma, "eta_full": eta_full, "eta_masked": eta_masked, **more}
        assert {key: objective[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"other": {"objective.gamma": 1.0}}, "one of other"),
        ({"mine": {"objective.gama": 1.0}}, "objective.gama"),
    ],
)
def test_an_arm_that_is_not_there_or_sets_nothing_is_refused(settings, message):
    config = OmegaConf.create(
        {"sweep": {"arm": "mine", "arms": settings}, "objective": {"gamma": 0.0}}
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        arms.apply_arm(config)


def test_an_arm_never_overrules_the_command_line(hydra_config):
    (job,) = jobs_of("+sweep=lab_method", "seed=7", "sweep.arm=papo_d", "objective.gamma=0.3")
    with pytest.raises(ValueError, match=r"papo_d sets objective.gamma itself"):
        hydra_config(job)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm"])
def test_other_launchers_compose(launcher):
    jobs = jobs_of("+sweep=lab_gamma", f"hydra/launcher={launcher}", only_first=True)
    assert launcher.split("_")[0] in jobs[0].hydra.launcher._target_


def test_a_failed_job_stops_no_other_and_a_finished_one_is_not_run_again(tmp_path):
    def sweep(strategies):
        return run_command(
            "+sweep=lab_masking_strategy",
            f"masking={strategies}",
            "seed=1",
            f"hydra.sweep.dir={tmp_path}",
            "masking.ratio=0.5",
            multirun=True,
        )

    # blank has no ratio, so its job cannot be composed: nothing starts.
    assert sweep("random_token,blank").code == 1
    assert not list(tmp_path.rglob("run.json"))

    # DINOv2 is not in the cache of a machine without network, which its job says within seconds.
    first = sweep("semantic,random_token")
    assert first.code == 1
    assert "masking.saliency.path" in first.stderr
    failure = json.loads((tmp_path / "semantic" / "seed_1" / "failure.json").read_text())
    assert "masking=semantic" in failure["overrides"]
    assert result(tmp_path / "random_token" / "seed_1")["status"] == "finished"

    before = contents(tmp_path / "random_token")
    again = sweep("semantic_policy,random_token")
    assert again.code == 0
    assert contents(tmp_path / "random_token") == before
    assert result(tmp_path / "semantic_policy" / "seed_1")["status"] == "finished"


def test_a_finished_job_of_other_settings_is_neither_repeated_nor_taken_for_this_one(tmp_path):
    def sweep(ratio):
        return run_command(
            *("+sweep=lab_masking_strategy", "masking=random_token", "seed=1"),
            *(f"hydra.sweep.dir={tmp_path}", f"masking.ratio={ratio}"),
            multirun=True,
        )

    assert sweep(0.5).code == 0
    other = sweep(0.7)
    assert other.code == 1
    assert "masking.ratio was 0.5, is 0.7" in other.stderr
