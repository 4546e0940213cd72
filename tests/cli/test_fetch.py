"""`t2i fetch` as a user runs it, against servers on the loopback device."""

import hashlib
import json
import zipfile
from urllib.parse import quote

import pytest

PLUGIN = """
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadFile, DownloadSpec, HubFiles

@hookimpl
def t2i_downloads():
    return [
        DownloadSpec(
            name="paints", summary="Paint", licence="CC0", licence_url="https://example.com/cc0",
            files=(DownloadFile(url="http://paints.example/box.zip", size={size}, checksum="md5:{md5}", part="box"),
                   DownloadFile(url="http://paints.example/list.txt", part="list")),
        ),
        DownloadSpec(name="brush", summary="Brush", licence="MIT", licence_url="https://example.com/mit",
                     hub=(HubFiles(repository="maker/brush"),)),
    ]
"""  # noqa: E501


@pytest.fixture
def fetch(t2i, site, server, tmp_path):
    """`t2i` with a plugin whose files a mirror has: `fetch(*arguments)`."""
    with zipfile.ZipFile(tmp_path / "box.zip", "w") as file:
        file.writestr("box/red.txt", "red" * 100_000)
    box = (tmp_path / "box.zip").read_bytes()
    site("painter", PLUGIN.format(size=len(box), md5=hashlib.md5(box).hexdigest()))
    server.files = {"/m/paints.example/box.zip": box, "/m/paints.example/list.txt": b"red\n"}

    def run(*arguments, **environment):
        settings = {"T2I_MIRROR": f"{server.url}/m", "T2I_PLUGINS": "painter"} | environment
        return t2i(*arguments, **settings)

    return run


def test_a_download_that_is_cut_and_unpacked(fetch, server, tmp_path):
    server.faults["/m/paints.example/box.zip"] = ["cut"]
    done = fetch("fetch", "paints", "--unpack", "--json")
    assert done.returncode == 0, done.stderr
    box, colours = json.loads(done.stdout)["files"]
    home = tmp_path / "home" / "fetched" / "paints"
    assert box["path"] == str(home / "box.zip")
    assert (box["checked"], box["fetched"], colours["checked"], colours["size"]) == (
        True,
        True,
        False,
        4,
    )
    assert (home / "box/red.txt").read_text() == "red" * 100_000
    lines = done.stderr.splitlines()
    assert "licence: CC0 (https://example.com/cc0)" in lines[1]
    assert any("trying again in 1 s" in line for line in lines)
    assert len([asked for _, asked in server.asked if asked]) == 1  # the rest of the box
    again = fetch("fetch", "paints")
    assert "box.zip: here" in again.stdout
    assert "its checksum agrees" in again.stdout
    assert "not checked" in again.stdout
    assert colours["sha256"] in again.stdout
    info = json.loads(fetch("info", "--json").stdout)["downloads"]
    assert info["paints"].startswith(str(home))
    assert info["brush"] == "missing: 't2i fetch brush' gets it"


def test_wrong_bytes_leave_with_2_and_without_a_file(fetch, server, tmp_path):
    server.faults["/m/paints.example/box.zip"] = ["wrong"]
    done = fetch("fetch", "paints", "--parts", "box")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith("it was removed; try again, or another --mirror")
    assert not (tmp_path / "home/fetched/paints/box.zip").exists()
    missing = fetch("fetch", "paints", "--mirror", f"{server.url}/none")
    assert missing.returncode == 2
    assert "404" in missing.stderr


def test_the_list_says_what_is_here(fetch):
    rows = {row["name"]: row for row in json.loads(fetch("fetch", "--json").stdout)}
    assert rows["paints"]["parts"] == ["box", "list"]
    assert rows["paints"]["missing"] == ["box.zip", "list.txt"]
    assert rows["brush"]["command"] == "t2i fetch brush"
    table = fetch("fetch").stdout.splitlines()
    assert table[0].split()[:4] == ["name", "size", "state", "licence"]
    assert fetch("fetch", "pains").stderr.strip().endswith("did you mean 'paints'?")


def host(server, revision, commit, bodies):
    """Lets the server be a hub that has the repository maker/brush at a revision."""
    api, base = "/api/models/maker/brush", "/maker/brush/resolve"
    listed = {
        "id": "maker/brush",
        "sha": commit,
        "siblings": [{"rfilename": name} for name in bodies],
    }
    server.files[f"{api}/revision/{quote(revision, safe='')}"] = json.dumps(listed).encode()
    tree = [
        {"type": "file", "path": name, "size": len(body), "oid": commit}
        for name, body in bodies.items()
    ]
    server.files[f"{api}/tree/{commit}"] = json.dumps(tree).encode()
    for name, body in bodies.items():
        server.files[f"{base}/{commit}/{name}"] = body
        server.headers[f"{base}/{commit}/{name}"] = {"X-Repo-Commit": commit}


@pytest.mark.parametrize("where", ["main", "refs/pr/7"])
def test_a_repository_of_a_hub_without_its_pickle(fetch, server, tmp_path, where):
    """huggingface_hub itself, against a hub on the loopback device (HF_ENDPOINT): its main revision
    has safetensors, or its bot offers them in another."""
    pickled, weights = (
        {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
        {"model.safetensors": b"w" * 1000},
    )
    host(server, "main", "0" * 40, pickled | (weights if where == "main" else {}))
    host(server, "refs/pr/7", "7" * 40, pickled | weights)
    offer = {
        "num": 7, "title": "Adding safetensors", "status": "open",
        "author": {"name": "SFconvertbot"},
        "isPullRequest": True, "createdAt": "2026-01-01T00:00:00.000Z",
        "repo": {"name": "maker/brush", "type": "model"},
    }  # fmt: skip
    talk = {
        "discussions": [offer | {"num": 6, "author": {"name": "somebody"}}, offer],
        "count": 2,
        "start": 0,
    }
    server.files["/api/models/maker/brush/discussions"] = json.dumps(talk).encode()
    hub = {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    done = fetch("fetch", "brush", "--json", **hub)
    assert done.returncode == 0, done.stderr
    (folder,) = json.loads(done.stdout)["hub"]
    assert folder.startswith(str(tmp_path / "hf"))
    found = {path.name for path in (tmp_path / "hf").rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors"} <= found
    assert "pytorch_model.bin" not in found
    rows = {
        row["name"]: row
        for row in json.loads(fetch("fetch", "--json", **hub | {"HF_HUB_OFFLINE": "1"}).stdout)
    }
    assert (rows["brush"]["folder"], rows["brush"]["here"]) == (folder, True)


def test_without_a_network_the_setting_is_named(fetch, tmp_path):
    done = fetch("fetch", "brush", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "empty"))
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE" in done.stderr.splitlines()[-1]
