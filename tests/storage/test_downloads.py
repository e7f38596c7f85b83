"""Downloads from the hub end in time and below a size, and what comes is data."""

import pickle
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from papo.data.hub_file import fetch_hub_file
from papo.data.rows import HubRows
from papo.storage import hub
from papo.storage.hub import download_in_time, fetch_model


@pytest.fixture
def repository(monkeypatch):
    """The hub has one, of two files of 3 MB and 5 MB."""
    files = [
        SimpleNamespace(rfilename="a", size=3_000_000),
        SimpleNamespace(rfilename="b", size=5_000_000),
    ]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.repo_info", lambda *a, **k: SimpleNamespace(siblings=files)
    )
    monkeypatch.setattr(hub, "START_SECONDS", 0.1)
    monkeypatch.setattr(hub, "SLOWEST_BYTES_PER_SECOND", 30_000_000)
    return "some/thing"


def slow() -> None:
    time.sleep(2)


@pytest.mark.parametrize(("file", "seconds"), [("a", 0.2), (None, 0.1 + 8 / 30)])
def test_a_download_has_the_time_that_its_size_takes(repository, file, seconds):
    started = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"the dataset some/thing .* did not come within"):
        download_in_time(repository, kind="dataset", revision=None, file=file, load=slow)
    assert seconds <= time.monotonic() - started < seconds + 0.5


def test_a_download_in_time_returns_what_it_loads(repository):
    assert download_in_time(repository, kind="model", revision=None, load=lambda: 3) == 3


def test_a_hub_that_does_not_answer_leaves_it_to_the_cache(monkeypatch, repository):
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *a, **k: time.sleep(2))
    assert download_in_time(repository, kind="model", revision=None, load=lambda: 3) == 3
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("asked"))
    fetch_model(repository, revision=None)


def test_a_model_is_fetched_without_its_code(repository, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: asked.append(k))
    fetch_model(repository, revision="abc")
    assert asked[0]["revision"] == "abc"
    assert not any(pattern.endswith(("*", ".py", ".bin")) for pattern in asked[0]["allow_patterns"])


def test_a_file_of_the_hub_beyond_the_limit_is_not_downloaded(repository, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: pytest.fail("asked"))
    with pytest.raises(
        FileNotFoundError,
        match=r"b of some/thing cannot be downloaded: it has 0\.01 GB, more than max_archive_gb=0\.004",
    ):
        fetch_hub_file(repository, "b", revision=None, remedy="Put it here.", max_gb=0.004)


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("kind", ["script", "pickle", "pickle under another name"])
def test_a_data_set_that_is_code_or_a_pickle_is_one_error_and_does_not_run(
    kind, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    marker, folder = tmp_path / "ran", tmp_path / "set"
    folder.mkdir()
    if kind == "script":
        (folder / "set.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    else:
        name = "train.pkl" if kind == "pickle" else "train.csv"
        (folder / name).write_bytes(pickle.dumps(Payload(marker)))
        (folder / "README.md").write_text(
            "---\nconfigs:\n- config_name: default\n"
            f"  data_files: {name}\n  builder_name: pandas\n---\n"
        )
    with pytest.raises(ValueError, match=r"split 'train' of the data set .* cannot be loaded"):
        HubRows(str(folder), revision=None, split="train")
    assert not marker.exists()
