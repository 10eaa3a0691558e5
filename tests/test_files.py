"""Files that are there whole or not at all, and the folders that they are in."""

import errno
import os
import stat

import pytest

from scratchvae import files
from scratchvae.files import make_folder, unfinished, write_together, write_whole


def test_what_is_not_yet_written_lies_beside_its_place_where_it_is_looked_for(tmp_path, monkeypatch):
    path, seen = tmp_path / "model.safetensors", []
    monkeypatch.setattr(files.os, "fsync", lambda handle: seen.extend(unfinished(path)))
    write_whole(tmp_path / "report.html", "another file")
    assert seen == []
    write_whole(path, b"1234")
    assert [beside.parent for beside in seen] == [tmp_path]
    assert unfinished(path) == []
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "report.html"]


def test_a_text_with_a_name_that_is_no_utf_8_is_written_all_the_same(tmp_path):
    write_whole(tmp_path / "report.html", f"trained on {os.fsdecode(bytes([99, 97, 102, 233]))}, ±")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("trained on caf")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").endswith(", ±")


def test_what_others_keep_beside_a_file_is_not_unfinished(tmp_path):
    for name in (".history.jsonl.swp", ".history.jsonl.1234", "history.jsonl~"):
        (tmp_path / name).write_text("an editor's")
    assert unfinished(tmp_path / "history.jsonl") == []


def test_who_may_read_a_file_stays_as_it_was_and_is_what_is_usual_of_a_new_one(tmp_path):
    path = tmp_path / "model.safetensors"
    before = os.umask(0o027)
    try:
        write_whole(path, b"1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        write_whole(path, b"2")
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(before)


def test_a_link_still_leads_to_the_file_that_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link, path = tmp_path / "samples.npy", tmp_path / "elsewhere" / "samples.npy"
    link.symlink_to(path)
    for content in (b"1", b"2"):
        write_whole(link, content)
        assert (link.is_symlink(), path.read_bytes()) == (True, content)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_is_not_written_leaves_nothing(tmp_path, monkeypatch, step):
    def interrupted(*_):
        raise KeyboardInterrupt

    (tmp_path / "page.html").write_text("the old one")
    monkeypatch.setattr(files.os, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "page.html", "the new one")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "the old one")]


def test_files_that_belong_together_take_their_places_when_all_are_written(tmp_path, monkeypatch):
    paths = {name: tmp_path / name for name in ("encoder.onnx", "decoder.onnx")}
    write_together({path: f"old {name}" for name, path in paths.items()})
    written, true = [], os.fsync

    def disk_that_is_full_at_the_second(handle):
        written.append(handle)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        true(handle)

    monkeypatch.setattr(files.os, "fsync", disk_that_is_full_at_the_second)
    with pytest.raises(ValueError, match=r"decoder.onnx: cannot be written \(No space left on device\)"):
        write_together({path: b"new" for path in paths.values()})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: f"old {name}" for name in paths}
    monkeypatch.undo()
    write_together({path: f"new {name}" for name, path in paths.items()})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: f"new {name}" for name in paths}


def test_a_folder_is_made_where_it_is_not_there_and_those_it_is_in_if_wanted(tmp_path):
    make_folder(tmp_path / "new")
    make_folder(tmp_path / "new")
    with pytest.raises(ValueError, match=r"no/new: cannot be made \(No such file or directory\)"):
        make_folder(tmp_path / "no" / "new")
    make_folder(tmp_path / "no" / "new", parents=True)
    assert (tmp_path / "no" / "new").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file: cannot be made \(File exists\); expected a folder"):
        make_folder(tmp_path / "file", parents=True)
