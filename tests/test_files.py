"""Files that are complete or not there, whoever else writes or is killed."""

import os

import pytest

from keras_dskd.internal import files, locks

fcntl = pytest.importorskip("fcntl", reason="fcntl is not on Windows")


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with files.replacing(path) as one:
        with open(one, "w") as file:
            file.write("one")
        with files.replacing(path) as other:
            with open(other, "w") as file:
                file.write("other")
        assert path.read_text() == "other"
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_nobody_writes_any_more_is_cleared_away(tmp_path):
    left = [tmp_path / ".partial-a.txt", tmp_path / ".partial-a.txt-x1"]
    for folder in left:
        folder.mkdir()
        (folder / "a.txt").write_text("half")
    (left[1] / ".lock").touch()
    with files.replacing(tmp_path / "a.txt") as written:
        with open(written, "w") as file:
            file.write("whole")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_older_file(tmp_path):
    (tmp_path / "a.txt").write_text("older")
    with pytest.raises(RuntimeError, match="Stopped"):
        with files.replacing(tmp_path / "a.txt") as written:
            with open(written, "w") as file:
                file.write("half")
            raise RuntimeError("Stopped.")
    assert (tmp_path / "a.txt").read_text() == "older"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_work_folder_that_was_taken_for_a_left_one_is_made_anew(
    tmp_path, monkeypatch
):
    """Another process may see it before it is locked."""
    hold, taken = locks.hold, []

    def held_late(filepath):
        if not taken:
            taken.append(os.path.dirname(filepath))
            os.rmdir(taken[0])
        return hold(filepath)

    with monkeypatch.context() as patch:
        patch.setattr(locks, "hold", held_late)
        with files.replacing(tmp_path / "a.txt") as written:
            assert os.path.dirname(written) != taken[0]
            with open(written, "w") as file:
                file.write("whole")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_files_that_cannot_be_locked_are_written(tmp_path, monkeypatch):
    def unsupported(*args):
        raise OSError("Function not implemented")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", unsupported)
        with files.replacing(tmp_path / "a.txt") as written:
            with open(written, "w") as file:
                file.write("whole")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_lock_is_held_once(tmp_path):
    held = locks.hold(tmp_path / ".lock")
    with pytest.raises(BlockingIOError, match="unavailable"):
        locks.hold(tmp_path / ".lock")
    held.close()
    locks.hold(tmp_path / ".lock").close()


def test_a_lock_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """Between its opening and its locking by the next process."""
    flock, removed = fcntl.flock, []

    def late(file, operation):
        if not removed:
            removed.append(os.fstat(file.fileno()))
            os.remove(tmp_path / ".lock")
        return flock(file, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", late)
        held = locks.hold(tmp_path / ".lock")
    with pytest.raises(BlockingIOError, match="unavailable"):
        locks.hold(tmp_path / ".lock")
    held.close()
