"""The folder of a benchmark: one command at a time, and nothing of somebody else's."""

import pytest

from t2i.benchmarks.run.out_folder import held_out
from t2i.core.errors import UserError
from t2i.core.io.processes import Group


def test_one_command_holds_it_and_the_next_may_go_on(tmp_path):
    out = tmp_path / "out"
    with (
        held_out(out, Group()),
        pytest.raises(UserError, match="another benchmark works there: wait for it, or name"),
        held_out(out, Group()),
    ):
        pass
    with held_out(out, Group()):
        pass


@pytest.mark.parametrize("inside", ["pictures", "partial", "scores", "runs/m", "grids/real.png"])
def test_links_out_of_it_are_refused(tmp_path, inside):
    mine = tmp_path / "mine"
    mine.mkdir()
    place = tmp_path / "out" / inside
    place.parent.mkdir(parents=True)
    (tmp_path / "out" / "results.json").touch()
    place.symlink_to(mine)
    with (
        pytest.raises(UserError, match="is a link that leads out of"),
        held_out(tmp_path / "out", Group()),
    ):
        pass
    assert not list(mine.iterdir())


def test_links_in_a_circle_and_inside_do_not_lead_out(tmp_path):
    (tmp_path / "out" / "scores").mkdir(parents=True)
    (tmp_path / "out" / "a").symlink_to(tmp_path / "out" / "b")
    (tmp_path / "out" / "b").symlink_to(tmp_path / "out" / "a")
    (tmp_path / "out" / "c").symlink_to("scores")
    with held_out(tmp_path / "out", Group()):
        pass


def test_a_link_to_it_is_the_users_own(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with held_out(tmp_path / "out", Group()):
        assert [path.name for path in (tmp_path / "disk").iterdir()] == [".lock"]


@pytest.mark.parametrize("inside", ["pictures/m/me.png", "model/manifest.json", "notes.txt"])
def test_a_folder_of_something_else_is_refused(tmp_path, inside):
    file = tmp_path / "out" / inside
    file.parent.mkdir(parents=True)
    file.touch()
    with (
        pytest.raises(UserError, match="no folder of a benchmark: name another --out"),
        held_out(tmp_path / "out", Group()),
    ):
        pass
    assert file.exists()
    assert not (tmp_path / "out" / ".lock").exists()


def test_clutter_is_nobodys_content(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".DS_Store").touch()
    with held_out(tmp_path / "out", Group()):
        assert (tmp_path / "out" / ".DS_Store").exists()
