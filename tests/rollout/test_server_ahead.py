"""train.py with rollout.ahead=1: the server writes the next rollout while the policy learns from this one."""

import csv
import signal
import threading

import pytest
import torch
from evaluation.evaluation_command import run_evaluation
from lab_module import lab_policy
from rollout.fake_server import fake_server
from training.command import run_command, sent_on_call

from papo.training import TrainingModule, collect

pytestmark = pytest.mark.slow

GENERATE = "/inference/v1/generate"
# Of the command's training; the probe and the evaluation ask for one response.
NUM_RESPONSES, NUM_PROMPTS = 2, 2


@pytest.fixture(autouse=True)
def interrupts_are_heard():
    """A shell starts what it runs in the background deaf to SIGINT, and so are these tests then."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def served_policy():
    return lab_policy()


@pytest.fixture
def server(served_policy, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    with fake_server(served_policy, folder) as running:
        yield running


def run(server, folder, *overrides, num_rollouts=4, **settings):
    return run_command(
        "rollout=server",
        "rollout.ahead=1",
        f"rollout.urls=[{server.url}]",
        f"rollout.weights_folder={server.folder}",
        "rollout.max_response_tokens=24",
        "rollout.top_p=1.0",
        "objective.importance_cap=2.0",
        "rollout.attempts=1",
        f"training.num_rollouts={num_rollouts}",
        f"run_dir={folder}",
        *overrides,
        **settings,
    )


def resume(folder, server, *overrides):
    return run_command(
        f"run_dir={folder}",
        "resume=true",
        f"+rollout.urls=[{server.url}]",
        *overrides,
        short=False,
    )


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def ages(folder):
    return [float(row["rollout/age"]) for row in rows(folder)]


def weights_after(folder, num_rollouts=4):
    path = folder / "checkpoints" / f"rollout_{num_rollouts:06d}.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_run(got, expected):
    assert rows(got) == rows(expected)
    theirs = weights_after(expected)
    for name, value in weights_after(got).items():
        assert torch.equal(value, theirs[name]), name


def asked_for_training(server):
    """The version of the weights at every prompt of training that the server was asked, in order."""
    versions, original = [], server.answer

    def answer(path, body):
        if path == GENERATE and body["sampling_params"]["n"] == NUM_RESPONSES:
            versions.append(server.version.rpartition(".")[2])
        return original(path, body)

    server.answer = answer
    return versions


def only_at(server, version, then):
    """Calls `then` in the place of the answers to training's prompts that weights of a version would write."""
    original = server.answer

    def answer(path, body):
        is_training = path == GENERATE and body["sampling_params"]["n"] == NUM_RESPONSES
        if is_training and server.version.endswith(f".{version}"):
            return then(lambda: original(path, body))
        return original(path, body)

    server.answer = answer


@pytest.fixture(scope="module")
def whole(served_policy, tmp_path_factory):
    """The uninterrupted run: its folder, what wrote its responses, and the weights that the server ended with."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "weights").mkdir()
    with fake_server(served_policy, folder / "weights") as running:
        versions = asked_for_training(running)
        done = run(running, folder / "run")
    assert done.code == 0, done.stderr
    return folder / "run", versions, running.version


def test_responses_come_from_the_weights_one_rollout_before(whole):
    folder, versions, version = whole
    # The first rollout is made as ever, with the weights that then write the second.
    # The last weights but one write those of a rollout that a longer run would have next.
    assert versions == [version for version in "00123" for _ in range(NUM_PROMPTS)]
    assert ages(folder) == [0.0, 1.0, 1.0, 1.0]
    for row in (found := rows(folder)):
        assert float(row["policy/ratio_mean"]) == pytest.approx(1.0, abs=1e-6)
        assert 0.0 <= float(row["policy/importance_capped"]) <= 1.0
    # An update lies between what is compared, but for the first rollout.
    differences = [float(row["rollout/logprob_difference_max"]) for row in found]
    assert differences[0] < 1e-4 < min(differences[1:])
    # The evaluation at the end is of the newest weights.
    assert version.endswith(".4")


def test_the_policy_learns_while_the_server_writes(server, tmp_path, monkeypatch):
    is_learning, update = threading.Event(), TrainingModule._update

    def learning(self, rollout):
        is_learning.set()
        return update(self, rollout)

    monkeypatch.setattr(TrainingModule, "_update", learning)
    asked = []

    def held(answer):
        asked.append(None)
        # The first rollout is waited for; the second is not answered until the update of the first has begun.
        if len(asked) > NUM_PROMPTS and not is_learning.wait(60):
            return 400, {"error": "nobody learns"}
        return answer()

    only_at(server, 0, held)
    done = run(server, tmp_path / "run", num_rollouts=1)
    assert done.code == 0, done.stderr
    assert len(asked) == 2 * NUM_PROMPTS


def test_a_run_that_was_saved_with_responses_goes_on_to_the_bit(
    server, served_policy, whole, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        sent_on_call(patch, collect, "group_advantages", signal.SIGUSR1, call=2)
        done = run(server, tmp_path / "run")
    assert done.code == 128 + signal.SIGUSR1, done.stderr
    assert len(rows(tmp_path / "run")) == 2
    with fake_server(served_policy, server.folder) as other:
        versions = asked_for_training(other)
        done = resume(tmp_path / "run", other)
        assert done.code == 0, done.stderr
    # The third rollout was in the checkpoint.
    assert versions == [version for version in "23" for _ in range(NUM_PROMPTS)]
    assert_same_run(tmp_path / "run", whole[0])


def test_a_finished_run_that_is_made_longer_is_the_longer_run(server, whole, tmp_path):
    versions = asked_for_training(server)
    assert run(server, tmp_path / "run", num_rollouts=2).code == 0
    done = resume(tmp_path / "run", server, "training.num_rollouts=4")
    assert done.code == 0, done.stderr
    # The third rollout was in the checkpoint that the run ended with.
    assert versions == [version for version in "00123" for _ in range(NUM_PROMPTS)]
    assert_same_run(tmp_path / "run", whole[0])


def test_ctrl_c_while_the_server_writes_ends_at_once_and_a_resume_goes_on_to_the_bit(
    server, whole, tmp_path, monkeypatch
):
    released = threading.Event()

    def late(answer):
        released.wait(60)
        return answer()

    answer = server.answer
    only_at(server, 2, late)
    with monkeypatch.context() as patch:
        # The fourth rollout is asked for, and the policy is about to learn from the third.
        sent_on_call(patch, TrainingModule, "_update", signal.SIGINT, call=3)
        done = run(server, tmp_path / "run", "callbacks.checkpoint.every_rollouts=2")
    assert not released.is_set()
    assert done.code == 128 + signal.SIGINT, done.stderr
    assert [one.name for one in (tmp_path / "run" / "checkpoints").iterdir()] == [
        "rollout_000002.ckpt"
    ]
    waiting = [one for one in threading.enumerate() if one.name == "papo-rollout"]
    assert all(one.daemon for one in waiting)
    released.set()
    server.answer = answer
    done = resume(tmp_path / "run", server)
    assert done.code == 0, done.stderr
    assert_same_run(tmp_path / "run", whole[0])


def test_a_server_that_fails_while_it_writes_ends_the_run_after_the_update_is_saved(
    server, tmp_path
):
    answer = server.answer
    only_at(server, 1, lambda answer: (503, {}))
    done = run(server, tmp_path / "run", num_rollouts=3)
    assert done.code == 1
    assert f"{server.url}, asked for {GENERATE}" in done.stderr
    assert len(rows(tmp_path / "run")) == 2
    server.answer = answer
    done = resume(tmp_path / "run", server)
    assert done.code == 0, done.stderr
    # Nothing was written ahead for the third.
    assert ages(tmp_path / "run") == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("stays_away", [False, True], ids=["comes back", "stays away"])
def test_where_a_server_fails_while_it_writes_the_rollout_is_made_as_ever(
    server, tmp_path, stays_away
):
    def fails(answer):
        if stays_away:
            server.faults.add("unavailable")
        return 503, {}

    only_at(server, 1, fails)
    done = run(server, tmp_path / "run", "rollout.on_failure=local")
    assert done.code == 0, done.stderr
    local = [float(row["rollout/local"]) for row in rows(tmp_path / "run")]
    if stays_away:
        assert local == [0.0, 0.0, 1.0, 1.0]
        assert ages(tmp_path / "run") == [0.0, 1.0, 0.0, 0.0]
    else:
        assert local == [0.0] * 4
        assert ages(tmp_path / "run") == [0.0, 1.0, 0.0, 1.0]


def test_a_server_that_writes_with_other_weights_ends_the_run_in_any_case(server, tmp_path):
    def of_later_weights(answer):
        status, said = answer()
        for choice in said["choices"]:
            choice["weight_versions"][0]["version"] = server.version[:-1] + "2"
        return status, said

    only_at(server, 1, of_later_weights)
    done = run(server, tmp_path / "run", "rollout.on_failure=local")
    assert done.code == 1
    assert "wrote a response with the weights" in done.stderr
    assert ".1 alone" in done.stderr
    assert len(rows(tmp_path / "run")) == 2


def test_a_run_that_a_rule_ends_lets_go_of_what_is_written(server, tmp_path):
    done = run(
        server,
        tmp_path / "run",
        "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
        "+callbacks.stop.monitor=reward/mean",
        "+callbacks.stop.stopping_threshold=-1.0",
        "+callbacks.stop.mode=max",
    )
    assert done.code == 0, done.stderr
    assert len(rows(tmp_path / "run")) == 1
    assert server.version.endswith(".1")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("rollout=server", "rollout.ahead=2"), "rollout.ahead=2. Set it to 0 or 1"),
        (("rollout=server", "rollout.ahead=true"), "rollout.ahead=True. Set it to 0 or 1"),
        (
            ("rollout=server", "rollout.ahead=1", "trainer=replicas", "trainer.devices=2"),
            "rollout.ahead=1 is for a run of one process; got 2. Set rollout.ahead=0",
        ),
    ],
)
def test_what_cannot_be_ahead_is_refused_before_a_server_is_asked(tmp_path, overrides, message):
    done = run_command(*overrides, "trainer.accelerator=cpu", f"run_dir={tmp_path / 'run'}")
    assert done.code == 1
    assert message in done.stderr
    assert not (tmp_path / "run" / "run.json").exists()


def test_an_evaluation_has_nothing_to_be_ahead_of(tmp_path):
    done = run_evaluation("rollout=server", "rollout.ahead=1", f"run_dir={tmp_path / 'run'}")
    assert done.code == 1
    assert "rollout.ahead=1. Set rollout.ahead=0" in done.stderr
    assert not (tmp_path / "run" / "run.json").exists()
