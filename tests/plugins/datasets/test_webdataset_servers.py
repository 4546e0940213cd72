"""Shards from servers that misbehave: nothing wrong is kept, and waiting is said."""

import gzip
import io
import json
import shutil
import tarfile

import pytest
from PIL import Image

from t2i.core.errors import UserError
from t2i.core.fetch import transfer as transferring
from t2i.plugins.datasets.webdataset import remote
from t2i.plugins.datasets.webdataset.config import WebDatasetConfig
from t2i.plugins.datasets.webdataset.dataset import build

PAGE = b"<!doctype html><html>please log in</html>"


def shard(number):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for at in range(3):
            image = io.BytesIO()
            Image.new("RGB", (12, 12), (number, at, 0)).save(image, "PNG")
            for suffix, data in (("png", image.getvalue()), ("txt", b"thing")):
                info = tarfile.TarInfo(f"{number}{at}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(transferring.time, "sleep", lambda _: None)
    return tmp_path / "home"


@pytest.fixture
def hosted(server):
    for number in range(2):
        server.files[f"/{number}.tar"] = shard(number)
    return f"{server.url}/{{0..1}}.tar"


def opened(shards, **settings):
    return build(WebDatasetConfig(image_size=8, shards=shards, **settings), "train")


def kept(home):
    return [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize(
    "page", [PAGE, gzip.compress(PAGE * 99), b"no tar " * 200], ids=["page", "packed page", "text"]
)
def test_what_is_no_tar_is_not_kept_and_comes_again(server, hosted, home, page):
    sound = server.files["/0.tar"]
    server.files["/0.tar"] = page
    with pytest.raises(UserError, match=r"/0\.tar: (what came is|a web page came)"):
        len(opened(hosted))
    assert not [path for path in kept(home) if path.suffix == ".tar"]
    server.files["/0.tar"] = sound
    assert len(opened(hosted)) == 3


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
@pytest.mark.parametrize("kept_blocks", [3, 4.5])
def test_a_cut_answer_without_a_length_is_asked_for_again(
    server, hosted, home, capfd, kept_blocks, pack
):
    server.lengths = False
    sound = server.files["/0.tar"]
    server.files["/0.tar"] = pack(sound)
    assert len(opened(hosted)) == 3
    server.files["/0.tar"] = pack(sound)[: int(kept_blocks * 512) if pack is bytes else -20]
    shutil.rmtree(home)
    with pytest.raises(UserError, match="what came has no end"):
        len(opened(hosted))
    assert not [path for path in kept(home) if path.suffix == ".tar"]
    assert "trying again" in capfd.readouterr().err


def test_what_an_older_version_kept_is_replaced(server, hosted, home):
    data = opened(hosted)
    data[0]
    (tar,) = [path for path in kept(home) if path.suffix == ".tar"]
    for index in tar.parent.glob("*.npy"):
        index.unlink()
    tar.write_bytes(PAGE)
    assert opened(hosted)[0].captions == ("thing",)


def test_shards_larger_than_the_cache_are_refused(server, hosted, home):
    with pytest.raises(UserError, match=r"/0\.tar: it has more than 1e-06 GB.*data\.cache_gb"):
        len(opened(hosted, cache_gb=1e-6))
    assert not [path for path in kept(home) if path.suffix in (".tar", ".part", ".arrived")]


@pytest.mark.parametrize("count", [10**30, -1, True, 1.5, "4", None])
def test_counts_that_are_none_are_made_by_reading(server, hosted, count, capfd):
    server.files["/0_stats.json"] = json.dumps({"successes": count}).encode()
    assert len(opened(hosted)) == 3
    assert "no statistics" in capfd.readouterr().err


def test_further_attempts_are_said(server, hosted, capfd):
    server.faults["/0.tar"] = [503, "cut"]
    assert len(opened(hosted)) == 3
    err = capfd.readouterr().err
    assert "503" in err
    assert "trying again in" in err


def test_stores_of_objects_are_bounded_too(tmp_path, monkeypatch):
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            return b"x" * size

    monkeypatch.setattr(remote, "_opened", lambda url: Endless())
    with pytest.raises(UserError, match=r"more than 0\.01 GB.*data\.cache_gb"):
        remote.download("s3://a/b.tar", tmp_path / "b.tar", 1e7)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
