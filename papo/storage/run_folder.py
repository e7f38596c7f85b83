"""What every run folder begins and ends with, whatever runs: training, an evaluation, an analysis.

run.json      command, overrides, git commit, versions, seed: papo.storage.provenance
config.yaml   the resolved configuration; config.json is the same
result.json   status, and what came of it
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from papo.storage.files import write_atomically, write_json
from papo.storage.provenance import run_facts


def holds_run(path: Path) -> bool:
    """Whether a run of any kind was begun here."""
    return (path / "run.json").exists()


def begin_run(
    path: Path,
    *,
    config: Mapping[str, Any],
    config_text: str,
    overrides: list[str],
    products: Collection[str] = (),
    **facts: Any,
) -> None:
    """Makes the folder of a run that is not begun yet.

    Args:
        path: the folder.
        config: the resolved configuration, plain values only.
        config_text: the same as the YAML text to keep.
        overrides: what the command line changed.
        products: files and folders of such a run; none may be there already.
        facts: what run.json says besides.

    Raises:
        ValueError: a product is there and nothing says whose.
    """
    if foreign := [name for name in products if (path / name).exists()]:
        raise ValueError(
            f"{path} holds {foreign[0]} but no run.json, so it is not clear whose it is. Choose "
            "another run_dir, or empty this one."
        )
    path.mkdir(parents=True, exist_ok=True)
    write_config(path, config, config_text)
    # Written last: a folder is a run once it says what the run is.
    write_json(
        path / "run.json", {**run_facts(overrides=overrides, seed=config.get("seed")), **facts}
    )


def write_config(path: Path, config: Mapping[str, Any], config_text: str) -> None:
    """Writes config.yaml and config.json."""
    write_atomically(path / "config.yaml", config_text)
    write_json(path / "config.json", config)


def write_result(path: Path, run: Mapping[str, Any], status: str, **values: Any) -> None:
    """Writes result.json.

    Args:
        path: the folder.
        run: what run.json says.
        status: finished, failed or interrupted.
        values: what else there is to say.
    """
    known = {"status": status, "overrides": run["overrides"], "seed": run.get("seed")}
    write_json(path / "result.json", {**known, **values})
