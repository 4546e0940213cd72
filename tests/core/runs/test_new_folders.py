"""Default folders: each command gets one of its own, and an empty one does not stay."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from t2i.core.runs.folder import new_folder


def test_each_of_many_commands_gets_a_folder_of_its_own(tmp_path):
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        base = tmp_path / "runs" / "m"
        found = list(pool.map(lambda _: stack.enter_context(new_folder(base)), range(24)))
        assert len(set(found)) == 24
        assert {path.name for path in found} == {"m", *(f"m-{n}" for n in range(2, 25))}
    assert not list(tmp_path.glob("runs/*"))


def test_a_folder_with_something_in_it_stays(tmp_path):
    with new_folder(tmp_path / "runs" / "m") as folder:
        (folder / "x").touch()
    with new_folder(tmp_path / "runs" / "m") as folder:
        assert folder.name == "m-2"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["m"]


def test_a_folder_stays_out_of_links_and_files_in_the_way(tmp_path):
    (tmp_path / "m").symlink_to(tmp_path / "elsewhere")  # leads nowhere
    with new_folder(tmp_path / "m") as folder:
        assert folder.name == "m-2"
    (tmp_path / "runs").touch()
    with pytest.raises((FileExistsError, NotADirectoryError)), new_folder(tmp_path / "runs" / "m"):
        pass


def test_a_command_that_fails_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="x"), new_folder(tmp_path / "a" / "b" / "m"):
        raise ValueError("x")
    assert not (tmp_path / "a").exists()
