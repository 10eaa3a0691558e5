"""Files that are there whole or not at all, and the folders that they are in."""

import os

import pytest

from scratchvae import files
from scratchvae.files import make_folder, unfinished, write_whole


def test_what_is_not_yet_written_lies_beside_its_place_where_it_is_looked_for(tmp_path, monkeypatch):
    path, seen = tmp_path / "model.safetensors", []
    monkeypatch.setattr(files.os, "fsync", lambda handle: seen.extend(unfinished(path)))
    write_whole(tmp_path / "report.html", "another file")
    assert seen == []
    write_whole(path, b"1234")
    assert [beside.parent for beside in seen] == [tmp_path]
    assert unfinished(path) == []
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "report.html"]


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
