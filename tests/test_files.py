import os
import stat
from pathlib import Path

import pytest

from convvae.errors import MissingFolderError, OutputError
from convvae.files import expand, make_folder, write_text


def test_a_file_appears_whole_in_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_text(path, "whole")
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_a_failure_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_usual_permissions(tmp_path):
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot make the folder .*file/sub"):
        make_folder(tmp_path / "file" / "sub")
    with pytest.raises(OutputError, match="choose a place that you may write to"):
        write_text(tmp_path / "file" / "a.txt", "")


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_what_is_not_a_file_is_left_alone():
    with pytest.raises(OutputError, match="/dev/null: it is not a file"):
        write_text(Path("/dev/null"), "")
    assert not Path("/dev/null").is_file()


def test_home_folders_are_written_out(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert expand(Path("~/x")) == Path("/home/someone/x")
    with pytest.raises(MissingFolderError, match="~no-such-user"):
        expand(Path("~no-such-user/x"))


def test_a_folder_where_the_file_should_be(tmp_path):
    (tmp_path / "taken" / "x").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "taken", "")
    assert (tmp_path / "taken" / "x").is_dir()
