"""What tests leave out of composing changes no configuration (composing_once.py)."""

import os

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException


def composed(folder, *overrides):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose("top", overrides=list(overrides))


def test_a_file_that_was_read_is_read_again_once_it_is_written(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "top.yaml").write_text("defaults: [part: one, _self_]\nvalue: 1\n")
    part = tmp_path / "part" / "one.yaml"
    part.write_text("number: 1\n")
    assert composed(tmp_path) == {"part": {"number": 1}, "value": 1}
    part.write_text("number: 2\n")
    assert composed(tmp_path).part.number == 2
    # As a file that is replaced, with the time of the one before.
    written = part.stat()
    (tmp_path / "new").write_text("number: 3\n")
    os.utime(tmp_path / "new", ns=(written.st_atime_ns, written.st_mtime_ns))
    (tmp_path / "new").replace(part)
    assert composed(tmp_path).part.number == 3
    part.unlink()
    (tmp_path / "part" / "one.yaml").write_text("other: 4\n")
    assert composed(tmp_path).part == {"other": 4}


def test_what_is_written_into_a_configuration_is_in_no_other(tmp_path):
    (tmp_path / "top.yaml").write_text("value: {number: 1}\n")
    composed(tmp_path).value.number = 2
    assert composed(tmp_path).value.number == 1


def test_what_a_command_sets_or_chooses_is_in_no_other(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "top.yaml").write_text("defaults: [part: one, _self_]\nvalue: {number: 1}\n")
    for name in ("one", "two"):
        (tmp_path / "part" / f"{name}.yaml").write_text(f"name: {name}\n")
    plain = {"part": {"name": "one"}, "value": {"number": 1}}
    for _ in range(2):
        assert composed(tmp_path) == plain
        assert composed(tmp_path, "value.number=2").value.number == 2
        assert composed(tmp_path, "part=two", "value.number=3") == {
            "part": {"name": "two"},
            "value": {"number": 3},
        }
        assert composed(tmp_path, "+part@other=two") == {**plain, "other": {"name": "two"}}
        assert composed(tmp_path, "~part") == {"value": {"number": 1}}
        with pytest.raises(MissingConfigException, match="part/three"):
            composed(tmp_path, "part=three")


def test_a_file_that_appears_or_goes_away_is_noticed(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "top.yaml").write_text("defaults: [optional part: one, _self_]\nvalue: 1\n")
    for _ in range(2):
        assert composed(tmp_path) == {"value": 1}
        (tmp_path / "part" / "one.yaml").write_text("number: 1\n")
        assert composed(tmp_path) == {"value": 1, "part": {"number": 1}}
        (tmp_path / "part" / "one.yaml").unlink()


def test_one_file_of_two_folders_is_that_of_each(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "top.yaml").write_text(f"value: {name}\n")
    assert [composed(tmp_path / name).value for name in "aba"] == ["a", "b", "a"]
