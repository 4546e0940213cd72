"""What plugins declare for `t2i fetch`: chosen, got through a mirror, recorded, found again."""

import hashlib
import json

import pytest

from t2i.core.errors import UserError
from t2i.core.fetch import downloads
from t2i.core.fetch.downloads import DownloadWatcher, fetch, fetched, mirrored, status
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadFile, DownloadSpec, HubFiles
from t2i.core.registry.tables import Registry, registry

BODIES = {"one.bin": b"one" * 100, "two.bin": b"two" * 200, "extra.bin": b"extra"}


def digest(name):
    return hashlib.md5(BODIES[name]).hexdigest()


class Plugin:
    def __init__(self, *specs):
        self.specs = specs

    @hookimpl
    def t2i_downloads(self):
        return list(self.specs)


@pytest.fixture
def paints(server, plug, tmp_path, monkeypatch):
    """A download `paints` of three files: one, two (of the default part), extra (not of it, without
    a checksum)."""
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("T2I_MIRROR", raising=False)
    server.files.update({f"/files/{name}": body for name, body in BODIES.items()})
    spec = DownloadSpec(
        name="paints", summary="Paint", licence="CC0", licence_url="https://example.com/cc0",
        default=("base",),
        files=(
            DownloadFile(url=f"{server.url}/files/one.bin", size=300, checksum=f"md5:{digest('one.bin')}"),  # noqa: E501
            DownloadFile(url=f"{server.url}/files/two.bin", path="sub/two.bin", part="base"),
            DownloadFile(url=f"{server.url}/files/extra.bin", part="more"),
        ),
    )  # fmt: skip
    plug(Plugin(spec), "painter")
    return spec


def test_the_default_parts_come_and_are_found(paints, tmp_path):
    with pytest.raises(UserError, match=r"^paints is not here: 't2i fetch paints' gets it$"):
        fetched("paints")
    assert status(paints).missing == ("one.bin", "sub/two.bin")
    files, _ = fetch("paints")
    folder = tmp_path / "home" / "fetched" / "paints"
    assert [(one.path, one.new, one.checked) for one in files] == [
        (folder / "one.bin", True, True), (folder / "sub/two.bin", True, False),
    ]  # fmt: skip
    assert files[1].sha256 == hashlib.sha256(BODIES["two.bin"]).hexdigest()
    assert fetched("paints") == folder
    assert fetched("paints", "sub/two.bin").read_bytes() == BODIES["two.bin"]
    assert (status(paints).folder, status(paints).size, status(paints).missing) == (folder, 900, ())
    with pytest.raises(
        UserError,
        match=r"extra.bin \(paints\) is not here: 't2i fetch paints --parts more' gets it",
    ):
        fetched("paints", "extra.bin")


def test_what_is_here_is_not_got_again_nor_read(paints, server, monkeypatch):
    fetch("paints")
    asked = len(server.asked)
    monkeypatch.setattr(downloads, "transfer", None)
    assert [one.new for one in fetch("paints")[0]] == [False, False]
    assert len(server.asked) == asked


def test_a_file_that_was_put_there_by_hand_is_checked(paints, tmp_path):
    folder = tmp_path / "home" / "fetched" / "paints"
    folder.mkdir(parents=True)
    (folder / "one.bin").write_bytes(b"x" * 300)
    with pytest.raises(UserError, match=r"one.bin has the MD5 .*remove it"):
        fetch("paints")
    (folder / "one.bin").write_bytes(BODIES["one.bin"])
    assert [one.new for one in fetch("paints")[0]] == [False, True]


def test_a_file_that_shrank_since_is_noticed(paints):
    one = fetch("paints")[0][0].path
    one.write_bytes(BODIES["one.bin"][:50])
    with pytest.raises(UserError, match="has 50 bytes, not 300"):
        fetch("paints")


def test_room_is_needed_only_for_what_is_to_come(paints, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(downloads, "need_space", lambda folder, size: asked.append(size))
    folder = tmp_path / "home" / "fetched" / "paints"
    folder.mkdir(parents=True)
    (folder / "one.bin.part").write_bytes(b"x" * 120)
    fetch("paints")
    fetch("paints")
    assert asked == [180, 0]


def test_parts_and_another_folder(paints, tmp_path):
    files, _ = fetch("paints", parts=["more"], out=tmp_path / "there")
    assert [one.path for one in files] == [tmp_path / "there" / "extra.bin"]
    with pytest.raises(UserError, match=r"'paints' has no part 'mroe'; did you mean 'more'"):
        fetch("paints", parts=["mroe"])


def test_a_mirror_stands_for_every_host(paints, server, tmp_path, monkeypatch):
    server.files = {f"/mirror/{server.host}/files/{name}": body for name, body in BODIES.items()}
    with pytest.raises(UserError, match="404"):
        fetch("paints")
    monkeypatch.setenv("T2I_MIRROR", f"{server.url}/mirror/")
    fetch("paints")
    folder = tmp_path / "disk" / server.host / "files"
    folder.mkdir(parents=True)
    (folder / "extra.bin").write_bytes(BODIES["extra.bin"])
    assert fetch("paints", parts=["more"], mirror=(tmp_path / "disk").as_uri())[0][0].size == 5


def test_the_rule_of_mirrors():
    assert (
        mirrored("http://u:p@a.example:81/b/c.zip?v=2", "https://m/x/")
        == "https://m/x/a.example:81/b/c.zip?v=2"
    )
    with pytest.raises(UserError, match=r"mirror m\.example: no http"):
        mirrored("http://a/b", "m.example")


def test_the_watcher_hears_of_each_file(paints):
    heard = []

    class Ear(DownloadWatcher):
        def begin(self, name):
            return lambda done, total: heard.append((name, done, total))

    fetch("paints", watcher=Ear())
    assert ("one.bin", 300, 300) in heard
    assert ("sub/two.bin", 600, 600) in heard


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"url": "ftp://a/b"}, "no http"),
        ({"path": "../b"}, "no path inside"),
        ({"path": "/b"}, "no path inside"),
        ({"path": "a\\b"}, "no path inside"),
        ({"url": "http://a/%2e%2e"}, "no path inside"),
        ({"url": "http://a/"}, "no path inside"),
        ({"checksum": "md5:12"}, "no checksum"),
        ({"checksum": "sha256:1234567"}, "no checksum"),
    ],
)
def test_unsound_files_cannot_be_declared(changes, wrong):
    with pytest.raises(ValueError, match=wrong):
        DownloadFile(**{"url": "http://a/b"} | changes)


def test_a_specification_of_the_wrong_stuff_breaks_its_plugin():
    tables = Registry()
    tables.register(
        Plugin(
            DownloadSpec(name="x", summary="s", licence="l", licence_url="u", files=("http://a/b",))
        ),
        "p",
    )
    assert "files of 'x'" in tables.plugins[0].error


def test_what_we_declare_can_be_known(monkeypatch, tmp_path):
    """Files of ours have checksums, if anybody published one; COCO's have sizes too."""
    files = {file.place: file for spec in registry().downloads for file in spec.files}
    lacking = {
        spec.name for spec in registry().downloads if not all(f.checksum for f in spec.files)
    }
    assert lacking <= {"hpsv2", "image-reward", "tifa", "drawbench"}
    assert files["weights-inception-2015-12-05-6726825d.pth"].checksum == "sha256:6726825d"
    assert sum(file.size for place, file in files.items() if "2014" in place) == 20_408_459_804
    named = {spec.name for spec in registry().downloads}
    assert {"coco", "inception", "vgg16", "clip", "vae", "dinov2"} <= named


def test_a_repository_in_the_hubs_cache_is_found(plug, tmp_path, monkeypatch):
    """By the arguments of snapshot_download; tests/cli/test_fetch.py gets one from a loopback
    hub."""
    folder, asked = tmp_path / "snapshot", []
    folder.mkdir()

    def snapshot_download(
        repository, *, revision, local_files_only=False, allow_patterns=None, local_dir=None
    ):
        asked.append((repository, revision, local_files_only, allow_patterns))
        (folder / "config.json").write_text("{}")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    spec = DownloadSpec(
        name="paper",
        summary="s",
        licence="l",
        licence_url="u",
        hub=(HubFiles(repository="a/b", revision="r"),),
    )
    plug(Plugin(spec), "hubber")
    with pytest.raises(UserError, match="a/b has no safetensors at revision r: pickles"):
        fetch("paper")
    assert status(spec).missing == ("a/b",)
    (folder / "model.safetensors").write_bytes(b"x")
    assert fetch("paper") == ([], [folder])
    assert asked[0] == ("a/b", "r", False, ["*.safetensors", "*.json", "*.txt"])
    assert fetched("paper", "model.safetensors") == folder / "model.safetensors"
    assert downloads.hub_folder("a/b") == folder
    assert downloads.hub_download("a/b") == "paper"
    assert json.loads(fetched("paper", "config.json").read_text()) == {}


def test_a_tokenizer_without_weights_is_whole_with_all_its_files(plug, tmp_path, monkeypatch):
    (tmp_path / "merges.txt").write_text("")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    hub = HubFiles(repository="a/b", patterns=("merges.txt", "config.json"))
    spec = DownloadSpec(name="paper", summary="s", licence="l", licence_url="u", hub=(hub,))
    plug(Plugin(spec), "hubber")
    with pytest.raises(UserError, match=r"a/b at revision main lacks one of merges\.txt, conf"):
        fetch("paper")
    assert downloads.hub_folder("a/b") is None
    (tmp_path / "config.json").write_text("{}")
    assert fetch("paper") == ([], [tmp_path])
    assert downloads.hub_folder("a/b") == tmp_path
