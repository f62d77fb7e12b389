"""Files are complete or absent, whoever else writes them or is killed."""

import os

import filelock
import pytest

from keras_dskd.internal import files


def write(path, content="whole"):
    with files.replacing(path) as written:
        with open(written, "w") as file:
            file.write(content)


def test_two_writers_of_one_file_do_not_interfere(tmp_path):
    path = tmp_path / "a.txt"
    with files.replacing(path) as one:
        with open(one, "w") as file:
            file.write("one")
        write(path, "other")
        assert path.read_text() == "other"
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_abandoned_partial_files_are_removed(tmp_path):
    abandoned = [tmp_path / f".partial-a.txt-0123456{n}" for n in (1, 2)]
    for folder in abandoned:
        folder.mkdir()
        (folder / "a.txt").write_text("half")
    (tmp_path / ".partial-a.txt-01234562.lock").touch()
    (tmp_path / ".partial-a.txt-01234563.lock").touch()
    write(tmp_path / "a.txt")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_partial_files_of_a_running_process_are_kept(tmp_path):
    with files.replacing(tmp_path / "a.txt") as written:
        write(tmp_path / "a.txt", "other")
        assert os.path.isdir(os.path.dirname(written))
        with open(written, "w") as file:
            file.write("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_error_keeps_the_older_file(tmp_path):
    (tmp_path / "a.txt").write_text("older")
    with pytest.raises(RuntimeError, match="Stopped"):
        with files.replacing(tmp_path / "a.txt") as written:
            with open(written, "w") as file:
                file.write("half")
            raise RuntimeError("Stopped.")
    assert (tmp_path / "a.txt").read_text() == "older"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_writer_waits_while_its_lock_file_is_taken_for_an_abandoned_one(
    tmp_path, monkeypatch
):
    """Another process may see the file before it is locked."""
    fcntl = pytest.importorskip("fcntl", reason="fcntl is not on Windows")
    flock, seen = fcntl.flock, []

    def late(file, operation):
        if not seen:
            seen.extend(tmp_path.glob(".partial-*"))
            with files.holding(str(seen[0])):  # Removes the file at its end.
                pass
            assert not seen[0].exists()
        return flock(file, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", late)
        with files.replacing(tmp_path / "a.txt") as written:
            assert seen[0].exists()
            with pytest.raises(filelock.Timeout, match="could not be acquired"):
                with files.holding(str(seen[0])):
                    pass
            with open(written, "w") as file:
                file.write("whole")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_files_that_cannot_be_locked_are_written(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="fcntl is not on Windows")

    def unsupported(*args):
        raise OSError("Function not implemented")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", unsupported)
        write(tmp_path / "a.txt")
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "name",
    [
        ".partial-a.txt-notes",
        ".partial-a.txt",
        ".partial-a.txt-01234567-2",
        ".partial-a.txt-0123456789",
        ".partial-a.txt-01234567",  # Its name is one of ours. Its contents are not.
    ],
)
def test_folders_of_the_user_are_kept(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("Years of work.")
    write(tmp_path / "a.txt")
    assert (tmp_path / name / "thesis.tex").read_text() == "Years of work."
    assert sorted(os.listdir(tmp_path)) == [name, "a.txt"]


def test_lock_is_held_once_and_leaves_no_file(tmp_path):
    path = str(tmp_path / ".lock")
    with files.holding(path):
        with pytest.raises(filelock.Timeout, match="could not be acquired"):
            with files.holding(path):
                pass
    assert not os.path.exists(path)
    with files.holding(path):
        pass


def test_lock_file_that_is_a_symbolic_link_is_not_followed(tmp_path):
    (tmp_path / "thesis.tex").write_text("Years of work.")
    (tmp_path / ".lock").symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(OSError, match="symbolic link|reparse point"):
        with files.holding(str(tmp_path / ".lock")):
            pass
    assert (tmp_path / "thesis.tex").read_text() == "Years of work."
