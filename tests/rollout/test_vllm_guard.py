"""Whom a vLLM server answers, and where it listens; without vLLM."""

import asyncio
import itertools
import json
import os
import subprocess
from pathlib import Path

import pytest

SERVER = Path(__file__).resolve().parents[2] / "servers" / "vllm"


@pytest.fixture
def answered(monkeypatch):
    """Asks the guard; returns the status of its answer, 200 where it let the request pass."""
    monkeypatch.syspath_prepend(str(SERVER / "plugin"))

    def ask(path, *headers, key=None, kind="http"):
        from papo_vllm.guard import TrainerOnly

        monkeypatch.delenv("PAPO_ROLLOUT_KEY", raising=False)
        if key:
            monkeypatch.setenv("PAPO_ROLLOUT_KEY", key)
        sent = []

        async def send(message):
            sent.append(message)

        async def server(scope, receive, send):
            await send({"status": 200})

        scope = {"type": kind, "path": path, "headers": list(headers)}
        asyncio.run(TrainerOnly(server)(scope, None, send))
        if "body" in sent[-1]:
            assert json.loads(sent[-1]["body"])["error"]
        return sent[0]["status"]

    return ask


RIGHT = (b"authorization", b"Bearer secret")


@pytest.mark.parametrize(
    "path",
    [
        "/collective_rpc",
        "/server_info",
        "/update_weight_version",
        "/v1/completions",
        "/v1/load_lora_adapter",
        "/inference/v1/generate/",
        "//update_weights",
        "/",
    ],
)
def test_what_no_trainer_asks_for_is_not_there(answered, path):
    assert answered(path) == answered(path, RIGHT, key="secret") == 404


def test_every_question_needs_the_key_where_there_is_one(answered):
    from papo_vllm.guard import ASKED

    for path in ASKED:
        assert answered(path, RIGHT, key="secret") == 200
        for headers in (
            [],
            [(b"authorization", b"secret")],
            [(b"authorization", b"Bearer secret2")],
            [(b"authorization", b"Bearer ")],
            [RIGHT, (b"authorization", b"Bearer other")],
        ):
            assert answered(path, *headers, key="secret") == 401
    assert answered("/health", key="secret") == 200
    assert answered("/metrics", kind="websocket") == 404


def test_without_a_key_a_page_in_a_browser_is_not_answered(answered):
    assert answered("/pause") == 200
    assert answered("/pause", (b"origin", b"http://a.page")) == 401


@pytest.fixture
def start(tmp_path):
    """Runs serve.sh with a stand-in for python that says what it was started with."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$PAPO_WEIGHTS_FOLDER"\nprintf "%s\\n" "$@"\n', "utf-8")
    python.chmod(0o755)

    def run(*arguments, **environment):
        kept = {
            k: v for k, v in os.environ.items() if k not in ("HOST", "PORT", "PAPO_ROLLOUT_KEY")
        }
        return subprocess.run(
            ["bash", SERVER / "serve.sh", *arguments],
            env={**kept, "PYTHON": str(python), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("environment", [{}, {"CPU": "1"}])
def test_a_server_listens_on_this_machine_behind_the_guard(start, tmp_path, environment):
    found = start("MODEL", tmp_path, "--max-model-len", "7", **environment)
    assert found.returncode == 0, found.stderr
    folder, *arguments = found.stdout.splitlines()
    assert folder == str(tmp_path.resolve())
    options = dict(itertools.pairwise(arguments))
    assert arguments[:4] == ["-m", "vllm.entrypoints.cli.main", "serve", "MODEL"]
    assert options["--host"] == "127.0.0.1"
    assert options["--middleware"] == "papo_vllm.guard.TrainerOnly"
    assert json.loads(options["--weight-transfer-config"]) == {"backend": "papo_folder"}
    assert options["--generation-config"] == "vllm"
    assert options["--max-model-len"] == "7"


def test_a_server_that_others_reach_needs_a_key_and_never_prints_it(start, tmp_path):
    refused = start("MODEL", tmp_path, HOST="0.0.0.0")
    assert refused.returncode == 2
    assert "set PAPO_ROLLOUT_KEY" in refused.stderr
    started = start("MODEL", tmp_path, HOST="0.0.0.0", PAPO_ROLLOUT_KEY="secret")
    assert started.returncode == 0
    assert "0.0.0.0" in started.stdout
    assert "secret" not in started.stdout + started.stderr


def test_what_a_server_needs_is_said(start, tmp_path):
    assert "serve.sh MODEL FOLDER" in start().stderr
    assert "make it first" in start("MODEL", tmp_path / "none").stderr
