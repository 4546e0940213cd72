"""A folder decides which data set reads it, where no name does."""

import sys
from types import SimpleNamespace

import pytest

from t2i.core.errors import UserError
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DatasetSpec
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset, resolve_config
from t2i.core.runs.recognising import recognised, refuse_folder


def of_tree(folder):
    return "a tree" if (folder / "tree").exists() else None


def of_leaf(folder):
    return "a leaf" if (folder / "leaf").exists() else None


def of_all(folder):
    return "files" if any(folder.iterdir()) else None


@pytest.fixture(autouse=True)
def kinds(toy, plug, monkeypatch):
    """Data sets that recognise a folder by a file in it; `anything` is general."""
    module = SimpleNamespace(of_tree=of_tree, of_leaf=of_leaf, of_all=of_all)
    monkeypatch.setitem(sys.modules, "t2i_kinds", module)
    toy = registry().datasets["toydata"]

    class Plugin:
        @hookimpl
        def t2i_datasets(self):
            return [
                DatasetSpec(
                    name=name, summary=name, config=toy.config, build=toy.build,
                    splits=("train", "val"), recognise=f"t2i_kinds:{look}",
                    general=look == "of_all",
                )
                for name, look in [("trees", "of_tree"), ("leaves", "of_leaf"), ("all", "of_all")]
            ]  # fmt: skip

    plug(Plugin(), "kinds")


@pytest.fixture
def folder(tmp_path):
    """`folder(*names)` makes a folder with these files."""

    def make(*names):
        path = tmp_path / "-".join(["set", *names])
        path.mkdir()
        for name in names:
            (path / name).write_text("")
        return path

    return make


def test_a_general_layout_gives_way_and_two_special_ones_ask(folder):
    assert (recognised(folder("tree")).name, recognised(folder("twig")).name) == ("trees", "all")
    assert recognised(folder("leaf")).why == "a leaf"
    with pytest.raises(UserError, match=r"'leaves' \(a leaf\); 'trees' \(a tree\); say which"):
        recognised(folder("leaf", "tree"))
    with pytest.raises(UserError, match="no data set recognises what is in it"):
        recognised(folder())
    with pytest.raises(UserError, match="nowhere is no folder"):
        recognised(folder("x") / "nowhere")


@pytest.mark.parametrize("how", ["overrides", "sets", "more", "name"])
def test_a_folder_decides_the_data_set_where_the_presets_own_reads_none(folder, how, capfd):
    path = folder("tree")
    given = {
        "overrides": {"overrides": {"data": {"dir": str(path)}}},
        "sets": {"sets": [f"data.dir={path}"]},
        "more": {"more": {"data": {"dir": str(path)}}},
        "name": {"overrides": {"data": {"name": str(path)}}},
    }[how]
    config = resolve_config("ldm", **given)
    assert (config.data.name, config.data.config.dir) == ("trees", str(path))
    assert f"data set: trees, for a tree in {path}" in capfd.readouterr().err


def test_a_preset_whose_data_set_reads_a_folder_keeps_it(folder):
    path = str(folder("tree"))
    assert resolve_config("toy", overrides={"data": {"dir": path}}).data.name == "toydata"
    assert resolve_config("ldm", preset="coco", sets=[f"data.dir={path}"]).data.name == "coco"


def test_a_data_set_that_reads_no_folder_refuses_one_with_the_one_that_would(folder):
    path = folder("tree")
    with pytest.raises(UserError, match=r"'shapes' reads no folder.* mean --data trees --data-dir"):
        resolve_config("ldm", overrides={"data": {"name": "shapes", "dir": str(path)}})
    with pytest.raises(UserError, match=r"reads no folder.*\(.*nowhere is no folder\)"):
        refuse_folder("shapes", path / "nowhere")
    refuse_folder("trees", path)


def test_a_folder_that_is_not_read_is_in_no_fingerprint():
    prints = {
        open_dataset(registry().datasets.choose("shapes", own, "data set")).fingerprint()
        for own in ({}, {"dir": "pics"}, {"few_broken": 0})
    }
    assert len(prints) == 1


def test_a_file_may_be_a_data_set_of_its_own(folder):
    inside = folder("tree") / "0.tar"
    inside.write_bytes(b"x")
    assert recognised(inside).name == "webdataset"
    inside = inside.rename(inside.with_suffix(".zip"))
    with pytest.raises(UserError, match=r"0\.zip is a file that no data set reads by itself; name"):
        recognised(inside)
