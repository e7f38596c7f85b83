"""A zip of pictures is extracted whole, once, inside its folder, or not at all."""

import os
import shutil
import stat
import time
import zipfile

import pytest
from data.benchmark_layouts import png, write_zip

from papo.data import archive
from papo.data.archive import extract_images


def extract(archive, max_archive_gb=1.0):
    return extract_images(archive, max_archive_gb=max_archive_gb)


def test_files_stand_beside_the_archive_under_its_name(tmp_path):
    archive = write_zip(tmp_path / "set_images.zip", {"a/": b"", "a/1.png": b"one", "2.png": b"2"})
    folder = extract(archive)
    assert folder == tmp_path / "set_images"
    assert (folder / "a" / "1.png").read_bytes() == b"one"
    assert (folder / "2.png").read_bytes() == b"2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set_images", "set_images.zip"]


def test_an_extracted_archive_is_not_read_again(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"1.png": b"one"})
    folder = extract(archive)
    archive.write_bytes(b"no longer a zip")
    assert extract(archive) == folder


def test_the_cache_is_used_where_nothing_can_be_written(tmp_path, monkeypatch):
    archive = write_zip(tmp_path / "a.zip", {"1.png": b"one"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    folder = extract(archive)
    assert folder.parent == tmp_path / "cache" / "papo"
    assert (folder / "1.png").read_bytes() == b"one"
    archive.touch()
    assert extract(archive) != folder, "another archive of the same name has another folder"


def leave(folder, age=3600.0):
    """What a killed extraction leaves."""
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.png").write_bytes(b"half")
    then = time.time() - age
    os.utime(folder, (then, then))
    return folder


def test_what_a_killed_extraction_left_is_removed_at_the_next_start(tmp_path):
    zipped = write_zip(tmp_path / "a.zip", {"1.png": b"one"})
    leave(tmp_path / ".a-k1ll3_00")
    extract(zipped)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.zip"]
    leave(tmp_path / ".a-k1ll3_00")
    extract(zipped)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.zip"]


def test_folders_that_are_not_ours_or_may_be_in_use_stay(tmp_path):
    zipped = write_zip(tmp_path / "a.zip", {"1.png": b"one"})
    fresh = leave(tmp_path / ".a-fr3sh000", age=0.0)
    others = [leave(tmp_path / name) for name in (".a-b-12345678", "a-12345678", ".a-config")]
    elsewhere = leave(tmp_path / "elsewhere")
    link = tmp_path / ".a-l1nk0000"
    link.symlink_to(elsewhere, target_is_directory=True)
    extract(zipped)
    assert all((folder / "a" / "1.png").exists() for folder in (fresh, *others, link))


def test_an_extraction_under_way_is_left_alone_however_long_it_takes(tmp_path, monkeypatch):
    zipped = write_zip(tmp_path / "a.zip", {"1.png": b"one"})
    extract_all, seen = archive._extract, []

    def slow(source, folder, max_archive_gb):
        extract_all(source, folder, max_archive_gb)
        os.utime(folder, (0, 0))
        if not seen:
            seen.append(folder)
            extract(zipped)  # another process starts meanwhile, and is faster
            assert (folder / "1.png").read_bytes() == b"one"

    monkeypatch.setattr(archive, "_extract", slow)
    assert (extract(zipped) / "1.png").read_bytes() == b"one"
    assert seen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.zip"]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../outside.png",
        "a/../../outside.png",
        "..",
        "C:/outside.png",
        "C:outside.png",
        "a\\..\\outside.png",
        "\\\\server\\outside.png",
        "a\0.png",
    ],
)
def test_a_member_that_would_leave_the_folder_is_refused(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    archive = write_zip(folder / "a.zip", {"good.png": b"good", "Z" * len(name): b"bad"})
    # zipfile mends names that it writes, so the name is put into the finished file.
    archive.write_bytes(archive.read_bytes().replace(b"Z" * len(name), name.encode()))
    with pytest.raises(ValueError, match=r"nothing was extracted: its member .* outside"):
        extract(archive)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "a.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_special_files_are_refused(tmp_path, kind):
    member = zipfile.ZipInfo("link.png")
    member.external_attr = (kind | 0o777) << 16
    archive = write_zip(tmp_path / "a.zip", {member: b"/etc/passwd"})
    with pytest.raises(ValueError, match=r"member 'link\.png' is a link or a special file"):
        extract(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_an_encrypted_member_is_refused(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"1.png": b"one"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="is encrypted"):
        extract(archive)


def test_a_zip_bomb_is_refused_by_its_ratio(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"zeros.png": bytes(80 * 1024**2)})
    with pytest.raises(ValueError, match=r"would grow from .* MB, which pictures do not"):
        extract(archive)


def test_an_archive_beyond_the_limit_names_the_key(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"1.png": bytes(3_000_000)})
    with pytest.raises(ValueError, match=r"more than max_archive_gb=0\.002\. Raise"):
        extract(archive, max_archive_gb=0.002)


def test_a_flood_of_empty_files_counts_against_the_limit(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {f"{index}.png": b"" for index in range(300)})
    with pytest.raises(ValueError, match=r"its 300 files would take 0\.0 GB, more than"):
        extract(archive, max_archive_gb=0.001)


def test_a_size_that_lies_is_noticed(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"1.png": bytes(3_000_000)})
    lie = (1).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace((3_000_000).to_bytes(4, "little"), lie))
    with pytest.raises(ValueError, match="cannot be read as a zip archive"):
        extract(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 and nothing"])
def test_a_file_that_is_no_zip_is_named(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.zip cannot be read as a zip.*download complete"):
        extract(tmp_path / "a.zip")


def test_a_damaged_member_leaves_nothing_behind(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"1.png": png("red"), "2.png": png("blue")})
    content = bytearray(archive.read_bytes())
    content[content.index(b"2.png") + 30] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as a zip archive"):
        extract(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_file_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.png", b"one")
        archive.writestr("1.png", b"another")
    with pytest.raises(ValueError, match="holds the same file twice"):
        extract(tmp_path / "a.zip")


def test_a_file_where_a_folder_should_be_is_refused(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"a": b"file", "a/1.png": b"one"})
    with pytest.raises(ValueError, match=r"a\.zip"):
        extract(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("d/" * 2000 + "1.png", "lies 2,001 folders deep, more than 32"),
        ("d/" * 32 + "1.png", "lies 33 folders deep, more than 32"),
        ("n" * 256, "has a longer name than file systems take"),
        ("é" * 128, "has a longer name than file systems take"),
        ("/".join(["n" * 200] * 6), "has a longer name than file systems take"),
        (".", "has no name"),
    ],
)
def test_a_path_that_no_file_system_takes_is_one_line_that_names_archive_and_member(
    tmp_path, name, problem
):
    archive = write_zip(tmp_path / "a.zip", {"good.png": b"good", name: b"bad"})
    with pytest.raises(ValueError, match=problem) as error:
        extract(archive)
    message = str(error.value)
    assert str(archive) in message
    assert repr(name[:30])[:-1] in message
    assert len(message) < 500
    assert "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_paths_as_deep_and_long_as_allowed_are_extracted(tmp_path):
    deep = "d/" * 31 + "1.png"
    archive = write_zip(tmp_path / "a.zip", {deep: b"deep", "n" * 255: b"long"})
    folder = extract(archive)
    assert (folder / deep).read_bytes() == b"deep"


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    zipped = write_zip(tmp_path / "a.zip", {f"{index}/": b"" for index in range(4)})
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    with pytest.raises(ValueError, match="it has 4 members, more than 3"):
        extract(zipped)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("again", ["a/1.png", "a//1.png", "./a/1.png", "a/./1.png"])
def test_two_names_of_one_file_are_refused_before_anything_is_written(tmp_path, again):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("a/1.png", b"one")
        zipped.writestr(again, b"another")
    with pytest.raises(ValueError, match=r"nothing was extracted: it holds the same file twice"):
        extract(tmp_path / "a.zip")


def test_every_flipped_byte_is_a_whole_archive_or_one_line_that_names_it(tmp_path):
    whole = write_zip(tmp_path / "whole.zip", {"a/1.png": b"one" * 9, "é.png": b"two"}).read_bytes()
    damaged = tmp_path / "damaged.zip"
    messages = []
    for index in range(len(whole)):
        content = bytearray(whole)
        content[index] ^= 0xFF
        damaged.write_bytes(content)
        try:
            shutil.rmtree(extract(damaged))
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > len(whole) / 2
    assert all("damaged.zip" in message for message in messages)
