"""Tar shards: read in every dialect, in an order that stays near, by URL, and whatever somebody has
put into them."""

import io
import json
import shutil
import tarfile
from itertools import islice

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.interfaces.visits import visits
from t2i.core.io.tensors import load_tensors
from t2i.core.runs.configure import resolve_config
from t2i.plugins.datasets.webdataset import shards as shards_module
from t2i.plugins.datasets.webdataset.config import WebDatasetConfig
from t2i.plugins.datasets.webdataset.dataset import build
from t2i.plugins.datasets.webdataset.grouping import index_of
from t2i.plugins.datasets.webdataset.names import expanded, find
from t2i.plugins.datasets.webdataset.tar import NoTar
from tests.stopped import stopped_at

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def make_image(level, size=12, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (level, 0, 255 - level)).save(buffer, kind)
    return buffer.getvalue()


def tar(path, members, dialect="ustar"):
    """Writes a tar of (name or TarInfo, bytes)."""
    with tarfile.open(path, "w", format=FORMATS[dialect]) as file:
        for name, body in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = info.size or len(body)
            file.addfile(info, io.BytesIO(body))
    return path


def example(shard, number):
    """The members that img2dataset writes."""
    key, level = f"{shard:05d}{number:04d}", 10 * shard + number
    told = json.dumps({"caption": f"image {level}", "width": 12})
    return [
        (f"{key}.png", make_image(level)),
        (f"{key}.txt", f"image {level}\n".encode()),
        (f"{key}.json", told.encode()),
    ]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path):
    """Five shards of four examples each, with the counts of img2dataset beside them."""
    path = tmp_path / "laion"
    path.mkdir()
    for shard in range(5):
        members = [member for number in range(4) for member in example(shard, number)]
        tar(path / f"{shard:05d}.tar", members, list(FORMATS)[shard % 3])
        (path / f"{shard:05d}_stats.json").write_text(json.dumps({"count": 5, "successes": 4}))
    return path


def opened(path=None, split="train", **settings):
    where = {} if path is None else {"dir": str(path)}
    return build(WebDatasetConfig(image_size=8, **where, **settings), split)


def only(tmp_path, members, **settings):
    """The train split of two shards: all examples of the first; the other is for val."""
    (tmp_path / "set").mkdir()
    tar(tmp_path / "set" / "a.tar", members, **settings)
    tar(tmp_path / "set" / "b.tar", example(9, 9))
    return opened(tmp_path / "set")


# --- what is read ---------------------------------------------------------------------------------


def test_the_last_shard_is_for_val(folder):
    data, val = opened(folder), opened(folder, "val")
    assert (len(data), len(val)) == (16, 4)
    seen = data[6]
    assert (seen.captions, seen.key) == (("image 12",), "00001/000010002")
    assert seen.image.shape == (8, 8, 3)
    assert seen.image[0, 0].tolist() == [12, 0, 243]
    assert val[3].captions == ("image 43",)
    assert [data[index].captions for index in range(16)] == [
        data.captions(index) for index in range(16)
    ]
    assert len({data[index].key for index in range(16)}) == 16
    assert list(data.vocabulary())[:2] == ["image 0", "image 1"]
    assert data.original(0).width == 12
    with pytest.raises(IndexError):
        data[16]


@pytest.mark.parametrize("dialect", FORMATS)
def test_every_dialect_and_long_names(tmp_path, dialect):
    long = "folder/" * 15 + "k" * 90
    data = only(
        tmp_path,
        [("./a.jpeg", make_image(5, kind="JPEG")), ("./a.txt", b"a"), (f"{long}.WEBP", make_image(9, kind="WEBP")),  # noqa: E501
         (f"{long}.txt", "größe".encode()), ("b.c.txt", b"of another kind"),
         ("b.png", make_image(1)), ("b.txt", b"b")],
        dialect=dialect,
    )  # fmt: skip
    assert [data.captions(index) for index in range(len(data))] == [("a",), ("größe",), ("b",)]
    assert data[1].key.endswith("k" * 90)


def test_captions_come_from_txt_or_json(tmp_path):
    told = [
        ("a.json", json.dumps({"caption": " of\njson "})),
        ("b.json", json.dumps({"caption": ["one", "two", ""]})),
        ("c.txt", "  "), ("c.json", json.dumps({"caption": "instead"})),
        ("d.json", json.dumps({"caption": 7})), ("e.json", "no json"), ("f.txt", ""),
    ]  # fmt: skip
    members = [(f"{key}.png", make_image(3)) for key in "abcdefg"] + [
        (name, text.encode()) for name, text in told
    ]
    data = only(tmp_path, members)
    assert [data[index].captions for index in range(3)] == [
        ("of json",),
        ("one", "two"),
        ("instead",),
    ]
    for index in range(3, 7):
        with pytest.raises(BrokenExample, match=r"a\.tar:[d-g]: no caption"):
            data[index]


def test_the_fingerprint_is_of_the_content_and_the_split(folder, tmp_path):
    before = opened(folder).fingerprint()
    assert before == opened(folder).fingerprint()
    assert before != opened(folder, "val").fingerprint()
    folder.rename(tmp_path / "moved")
    assert before == opened(tmp_path / "moved").fingerprint()
    tar(tmp_path / "moved" / "00002.tar", example(2, 0))
    assert before != opened(tmp_path / "moved").fingerprint()


def test_splits(folder):
    assert len(opened(folder, val_shards=2)) == 12
    data, val = (opened(folder, split, val_shards=0, val_share=0.3) for split in ("train", "val"))
    keys = [{part[index].key for index in range(len(part))} for part in (data, val)]
    assert not keys[0] & keys[1]
    assert len(keys[0] | keys[1]) == 20
    assert 1 <= len(val) <= 11
    with pytest.raises(UserError, match="val_shards = 5 of 5 shards leaves none"):
        opened(folder, val_shards=5)
    assert [len(opened(folder, s, val_shards=0, val_share=1e-9)) for s in ("train", "val")] == [
        19,
        1,
    ]
    assert [len(opened(folder, s, val_shards=0, val_share=0.999999)) for s in ("train", "val")] == [
        1,
        19,
    ]


def test_patterns():
    assert expanded("s3/{08..11}.tar") == ["s3/08.tar", "s3/09.tar", "s3/10.tar", "s3/11.tar"]
    assert expanded("{a,b}{0..1}") == ["a0", "a1", "b0", "b1"]
    for pattern in ("{3..1}", "{0..9999999}", "{0..99999}{0..99999}"):
        with pytest.raises(UserError, match="stands for"):
            expanded(pattern)


def test_what_is_not_there_is_said(folder, tmp_path):
    (tmp_path / "bare").mkdir()
    assert [shard.stem for shard in find(WebDatasetConfig(dir=str(folder), shards="{00001..00002}.tar")).shards] == [  # noqa: E501
        "00001", "00002",
    ]  # fmt: skip
    for place, said in [
        ({}, "say where its shards are, with --data-dir FOLDER or --set data.shards=URL"),
        ({"dir": str(tmp_path / "none")}, "none is no folder"),
        ({"dir": str(tmp_path / "bare")}, "no \\*.tar in"),
        ({"dir": str(folder), "shards": "00009.tar"}, "00009.tar is not there"),
    ]:
        with pytest.raises(UserError, match=said):
            find(WebDatasetConfig(**place))


def test_an_index_is_made_once_and_anew_when_the_shard_changes(folder, monkeypatch):
    len(opened(folder))
    made = []
    monkeypatch.setattr(
        shards_module,
        "index_of",
        lambda path, choice: made.append(path.name) or index_of(path, choice),
    )
    assert len(opened(folder)) == 16
    assert made == []
    tar(folder / "00003.tar", example(3, 0))
    assert len(opened(folder)) == 13
    assert made == ["00003.tar"]
    kept = next((folder.parent / "home/webdataset/indexes").iterdir())
    kept.write_bytes(b"\x93NUMPY damaged")
    assert len(opened(folder)) == 13


# --- in which order -------------------------------------------------------------------------------


def test_an_epoch_visits_all_and_stays_near(folder):
    data = opened(folder, window=2)
    first, second = list(data.order(3, 0)), list(data.order(3, 1))
    assert sorted(first) == sorted(second) == list(range(16))
    assert first != second
    assert first != list(data.order(4, 0))
    assert [len({index // 4 for index in first[at : at + 8]}) for at in (0, 8)] == [2, 2]
    assert len({index // 4 for index in first[:4]}) == 2  # mixed within the window


def test_resuming_within_an_epoch_passes_over_windows(folder):
    data = opened(folder, window=2)
    whole = [visit.index for visit in islice(visits(data, 0, 0), 40)]
    for start in range(0, 33, 3):
        assert [visit.index for visit in islice(visits(data, 0, start), 40 - start)] == whole[
            start:
        ]


def assert_resumes(model, folder, tmp_path, workers, **settings):
    """A run that goes on from its checkpoint at step 5 (in the second epoch, in the midst of a
    window) has the weights of the one that went through."""
    data = {"name": "webdataset", "dir": str(folder), "window": 2}
    common = {"data": data, "steps": 9, "batch_size": 4, "checkpoint_every": 5, "workers": workers}
    whole = train(
        resolve_config(model, overrides=common | settings), tmp_path / "whole", reporter=Silent()
    )
    part = stopped_at(whole, 5, tmp_path / "part")
    shutil.rmtree(part.model)
    resume(part.path, reporter=Silent())
    ours, theirs = tensors(whole), tensors(part)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 4
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def tensors(run):
    files = [*(run.checkpoints / "step-9").glob("*.safetensors"), *run.model.glob("*.safetensors")]
    return {
        f"{f.parent.name}/{f.name}/{n}": t for f in files for n, t in load_tensors(f, "x").items()
    }


@pytest.mark.usefixtures("toy")
def test_training_resumes_to_the_same_weights(folder, tmp_path):
    assert_resumes("toy", folder, tmp_path, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_training_resumes_to_the_same_weights_with_workers(folder, tmp_path):
    assert_resumes("toy", folder, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_ldm_resumes_to_the_same_weights(folder, tmp_path, workers):
    assert_resumes("ldm", folder, tmp_path, workers, image_size=32)


# --- what somebody has put into them --------------------------------------------------------------


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def broken(data, index):
    with pytest.raises(BrokenExample) as caught:
        data[index]
    return str(caught.value)


def test_links_devices_and_sparse_files_are_not_followed(tmp_path):
    kinds = {
        "sym": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE,
        "char": tarfile.CHRTYPE,
        "block": tarfile.BLKTYPE, "hole": tarfile.GNUTYPE_SPARSE,
    }  # fmt: skip
    members = [(special(f"{name}.png", kind, "/etc/passwd"), b"") for name, kind in kinds.items()]
    data = only(
        tmp_path,
        [*members, *((f"{name}.txt", b"text") for name in kinds), *example(0, 0)],
        dialect="gnu",
    )
    said = [broken(data, index) for index in range(6)]
    assert [part.partition("its image is ")[2] for part in said] == [
        "a link, which is not followed", "a link, which is not followed", "no file, but a device",
        "no file, but a device", "no file, but a device", "a sparse file",
    ]  # fmt: skip
    assert said[0].startswith(str(tmp_path / "set/a.tar") + ":sym: ")
    assert data[6].captions == ("image 0",)


def test_a_pax_sparse_file_and_a_pax_size_are_seen(tmp_path):
    info = tarfile.TarInfo("a.png")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "99"}
    data = only(tmp_path, [(info, make_image(0)), ("a.txt", b"a"), *example(0, 0)], dialect="pax")
    assert broken(data, 0).endswith("its image is a sparse file")
    assert data[1].captions == ("image 0",)


@pytest.mark.parametrize("name", ["../../out", "/out", "a/../../out", "C:\\out"])
def test_names_are_never_paths(tmp_path, name):
    data = only(tmp_path, [(f"{name}.png", make_image(7)), (f"{name}.txt", b"text")])
    before = {path for path in tmp_path.rglob("*") if "home" not in path.parts}
    assert data[0].key == f"a/{name}".replace("//", "/")
    assert {path for path in tmp_path.rglob("*") if "home" not in path.parts} == before
    assert not (tmp_path / "out.png").exists()


def test_a_tar_that_is_cut_off_loses_no_more_than_it_has_lost(folder):
    path = folder / "00001.tar"
    whole = path.read_bytes()
    cut = index_of(path).rows["image"][2]
    path.write_bytes(whole[: cut[0] + cut[1] // 2])
    data = opened(folder)
    assert len(data) == 15
    assert data[5].captions == ("image 11",)
    assert broken(data, 6).endswith(
        "00001.tar:000010002: its image is cut off: the tar ends within it"
    )
    assert data[7].captions == ("image 20",)


def test_garbage_in_the_midst_is_said(folder):
    path = folder / "00000.tar"
    whole = bytearray(path.read_bytes())
    at = int(index_of(path).rows["image"][1][0]) - 512
    whole[at : at + 512] = b"\xff" * 512
    path.write_bytes(bytes(whole))
    data = opened(folder)
    assert len(data) == 14
    assert broken(data, 1).endswith(f"00000.tar:byte-{at}: the tar is damaged from here on")
    assert data[2].captions == ("image 10",)


@pytest.mark.parametrize("content", [b"<html>no tar</html>", b"x" * 5000])
def test_what_is_no_tar_is_refused(folder, content):
    (folder / "00002.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"00002\.tar is no tar file; remove it"):
        opened(folder)


@pytest.mark.parametrize("field", [b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12])
def test_sizes_that_lie(tmp_path, field):
    """The largest octal, GNU's largest (2^88), and a negative one."""
    path = tar(tmp_path / "a.tar", [*example(0, 0), ("b.png", make_image(0)), ("b.txt", b"b")])
    content = bytearray(path.read_bytes())
    at = int(index_of(path).rows["image"][1][0]) - 512
    content[at + 124 : at + 136] = field
    content[at + 148 : at + 156] = b" " * 8
    content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    path.write_bytes(bytes(content))
    tar(tmp_path / "b.tar", example(9, 9))
    data = opened(tmp_path)
    assert data[0].captions == ("image 0",)
    assert "cut off" in broken(data, 1) or "damaged" in broken(data, 1)


def test_a_member_too_large_to_be_a_caption_is_not_read(tmp_path):
    data = only(tmp_path, [("a.png", make_image(0)), ("a.txt", bytes(2 << 20)), *example(0, 0)])
    assert broken(data, 0).endswith("a.tar:a: its caption is too large")


def test_what_is_no_image_or_has_none(tmp_path):
    data = only(
        tmp_path,
        [("a.png", b"no image"), ("a.txt", b"a"), ("b.txt", b"b"), ("c.png", make_image(1))],
    )
    assert "a.tar:a: " in broken(data, 0)
    assert broken(data, 1).endswith("a.tar:b: no image")
    assert broken(data, 2).endswith("a.tar:c: no caption")


@given(st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_give_an_index_or_no_tar(tmp_path, data):
    """Headers of a sound tar with bytes changed at random: no exception of another kind, no place
    out of the file."""
    path = tar(
        tmp_path / "fuzz.tar",
        [*example(0, 0), (f"{'n' * 150}.png", make_image(1)), *example(0, 1)],
        "pax",
    )
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        index = index_of(path).rows
    except NoTar:
        return
    for row in index[index["problem"] == 0]:
        for kind in ("image", "text", "meta"):
            assert row[kind][0] + row[kind][1] <= path.stat().st_size


# --- by URL ---------------------------------------------------------------------------------------


@pytest.fixture
def hosted(server, folder):
    """The shards on a loopback server: their pattern."""
    for path in folder.iterdir():
        server.files[f"/laion/{path.name}"] = path.read_bytes()
    return f"{server.url}/laion/{{00000..00004}}.tar"


def got(server):
    return [path.rpartition("/")[2] for path, _ in server.asked if path.endswith(".tar")]


def idle(data):
    """Waits for what is brought ahead."""
    if data._ahead._thread:
        data._ahead._thread.join()


def test_shards_by_url_come_when_they_are_needed(server, hosted, folder):
    data, local = opened(shards=hosted), opened(folder)
    assert len(data) == 16
    assert got(server) == []
    assert data[5].captions == local[5].captions == ("image 11",)
    assert (data[5].image == local[5].image).all()
    assert data[6].key == local[6].key
    assert got(server) == ["00001.tar"]
    assert list(data.order(0, 0)) == list(local.order(0, 0))
    asked = len(server.asked)
    again = opened(shards=hosted)  # counts are remembered, shards are kept
    idle(data)
    asked = len(server.asked)
    assert again[5].captions == ("image 11",)
    assert len(server.asked) == asked


def test_the_next_window_comes_ahead(server, hosted):
    data = opened(shards=hosted, window=1)
    order = data.order(0, 0)
    first = next(order) // 4
    idle(data)
    assert len(got(server)) == 2
    assert got(server)[0] == f"{first:05d}.tar"
    second = next(islice(order, 3, None)) // 4
    assert got(server)[1] == f"{second:05d}.tar"
    idle(data)
    assert len(got(server)) == 3


def test_the_cache_keeps_what_was_used_last(server, hosted, home):
    size = len(server.files["/laion/00000.tar"])
    data = opened(shards=hosted, cache_gb=2.5 * size / 1e9)
    for index in (0, 4, 0, 8):  # shards 0, 1, 0, 2: 1 has to go
        data[index]
    kept = list((home / "webdataset/shards").glob("*.tar"))
    assert len(kept) == 2
    assert got(server) == ["00000.tar", "00001.tar", "00002.tar"]
    data[1]
    assert len(got(server)) == 3
    assert data[5].captions == ("image 11",)
    assert got(server)[3] == "00001.tar"


def test_without_statistics_shards_are_counted_by_reading_them(server, hosted):
    for number in range(5):
        del server.files[f"/laion/{number:05d}_stats.json"]
    assert len(opened(shards=hosted)) == 16
    assert sorted(got(server)) == [f"{number:05d}.tar" for number in range(4)]


def test_statistics_that_promise_too_much_are_found_out(server, hosted):
    server.files["/laion/00001_stats.json"] = b'{"successes": 6}'
    data = opened(shards=hosted)
    assert len(data) == 18
    assert data[7].captions == ("image 13",)
    assert "has 4 examples, fewer than expected" in broken(data, 8)
    assert data[10].captions == ("image 20",)


def test_a_shard_that_is_cut_on_the_way_comes_whole(server, hosted, monkeypatch):
    monkeypatch.setattr("t2i.core.fetch.transfer.WAIT", 0)
    server.faults["/laion/00000.tar"] = ["cut", 503]
    assert opened(shards=hosted)[3].captions == ("image 3",)
    assert [asked for path, asked in server.asked if path.endswith("00000.tar")][1].startswith(
        "bytes="
    )


def test_a_shard_that_is_not_there_stops_with_its_url(server, hosted):
    del server.files["/laion/00002.tar"]
    with pytest.raises(UserError, match=r"/laion/00002\.tar: the server answered 404"):
        opened(shards=hosted)[8]


def test_shards_by_url_are_split_by_whole_shards(server, hosted):
    with pytest.raises(UserError, match=r"set data\.val_shards to 1 or more"):
        opened(shards=hosted, val_shards=0)


@pytest.mark.usefixtures("toy")
def test_two_workers_on_shards_by_url_train_as_none_on_those_here(server, hosted, folder, tmp_path):
    def trained(name, data, workers):
        config = resolve_config(
            "toy",
            overrides={"data": {"name": "webdataset", "window": 2, **data}, "workers": workers},
        )
        return load_tensors(
            train(config, tmp_path / name, reporter=Silent()).model / "generator.safetensors", "x"
        )

    ours, theirs = (
        trained("local", {"dir": str(folder)}, 0),
        trained("remote", {"shards": hosted}, 2),
    )
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert (
        sorted(set(got(server)))
        == sorted(got(server))
        == [f"{number:05d}.tar" for number in range(5)]
    )
