"""Killed anywhere, a command that is given again ends as if it had never been stopped.

Compared is all that is in the folder where it works, the cache included: no file is half-written,
and none is left over. SIGKILL ends the real process, at an operation on files (see faults.py).
"""

import hashlib
import json
import random
import shutil
import signal
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

KILLS = 30
COMMANDS = {
    "sample": ("sample", "--run", "run", "-p", "a red circle", "-p", "a blue square", "-n", "3",
               "--batch-size", "2", "--out", "out"),
    "import": ("import", "--model", "ddpm", "theirs", "--out", "out"),
    "import unnamed": ("import", "--model", "ddpm", "theirs"),
    "export": ("export", "--run", "imported", "--out", "out"),
    "fetch": ("fetch", "paints", "--unpack"),
    "bench": ("bench", "shapes", "--run", "m=run", "--models", "dfgan", "--steps", "3",
              "--samples", "4", "--keep-images", "--out", "out"),
    "bench samplers": ("bench", "samplers", "shapes", "--run", "run", "--steps", "2",
                       "--samples", "4"),
}  # fmt: skip
PAINTS = """
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadFile, DownloadSpec
from t2i.core.registry.tables import registry

class Plugin:
    @hookimpl
    def t2i_downloads(self):
        files = tuple(
            DownloadFile(url=f"{url}/files/{{name}}", path=name, checksum=checksum)
            for name, checksum in {sums!r}.items()
        )
        return [DownloadSpec(name="paints", summary="s", licence="CC0", licence_url="https://x.org",
                             files=files)]

registry().register(Plugin(), "painter")
"""
MEASURED = {
    "wall", "created", "spent", "clock", "stage_clock", "since", "peak_memory_bytes", "attainable",
    "machine_rate",
}  # fmt: skip
"""Keys of documents that say when, how long, or how much, beside those of seconds."""


def published():
    """The files of the download, by name: with and without a checksum, large, and an archive."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name in ("a.txt", "sub/b.txt"):
            opened.writestr(zipfile.ZipInfo(name), name * 1000)
    large = b"".join(hashlib.sha256(bytes([n % 256])).digest() for n in range(1 << 17))
    return {"large.bin": large, "sub/plain.bin": b"plain" * 99, "some.zip": archive.getvalue()}


@pytest.fixture(scope="session")
def theirs(nursery, tmp_path_factory):
    """A folder of diffusers."""
    diffusers = pytest.importorskip("diffusers")
    nursery.imports("t2i.plugins.models.ddpm.folders")
    folder = tmp_path_factory.mktemp("theirs") / "theirs"
    network = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        attention_head_dim=4,
    )  # fmt: skip
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(60)).save_pretrained(folder)
    return folder


@pytest.fixture
def prepare(request, nursery):
    """`prepare(command, folder)` puts into a folder what a command needs."""

    def put(command, folder):
        folder.mkdir()
        if command == "sample" or command.startswith("bench"):
            shutil.copytree(request.getfixturevalue("reference")("ddpm"), folder / "run")
        elif command.startswith("import"):
            shutil.copytree(request.getfixturevalue("theirs"), folder / "theirs")
        elif command == "export":
            shutil.copytree(request.getfixturevalue("imported"), folder / "imported")

    nursery.load("ddpm")
    return put


@pytest.fixture(scope="session")
def imported(nursery, theirs):
    folder = theirs.parent / "imported"
    done = nursery("import", "--model", "ddpm", theirs, "--out", folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def command(nursery, server, prepare, tmp_path):
    """`command(name, folder, **more)` prepares a folder if it is not there, and runs a command in
    it, whose events are watched there."""
    bodies = published()
    server.files.update({f"/files/{name}": body for name, body in bodies.items()})
    sums = {
        name: None if "plain" in name else f"sha256:{hashlib.sha256(body).hexdigest()}"
        for name, body in bodies.items()
    }
    script = PAINTS.format(url=server.url, sums=sums)

    def run(name, folder, **more):
        if not folder.exists():
            prepare(name, folder)
        home = {"T2I_HOME": str(folder / "home")}
        before = script if name == "fetch" else None
        return nursery(
            *COMMANDS[name], cwd=folder, environment=home, watched=folder, script=before, **more
        )

    return run


@pytest.fixture
def survives(command, tmp_path):
    """`survives(name, choose)`: kills a command at each of the events that `choose(lines)` gives of
    all its events, and gives it again."""

    def go(name, choose):
        log = tmp_path / "events"
        done = command(name, tmp_path / "whole", events=log)
        assert done.code == 0, done.err
        whole = contents(tmp_path / "whole")
        for kill in choose(log.read_text().splitlines()):
            folder = tmp_path / "work"
            told = log.read_text().splitlines()[kill - 1]
            done = command(name, folder, kill_at=kill)
            assert done.code == -signal.SIGKILL, f"{kill} ({told}): {done.err}"
            done = command(name, folder)
            refused = (
                done.code == 2 and "is there already, and not empty: choose another" in done.err
            )
            assert refused or done.code == 0, f"{kill} ({told}): {done.err}"
            for found in twice(contents(folder)):
                assert same(whole, found), f"{kill} ({told})"
            shutil.rmtree(folder)

    return go


def twice(found):
    """A command that names its folder itself makes a second one beside the first, if that was
    complete."""
    first = {name: value for name, value in found.items() if "imported-2" not in name}
    second = {name: value for name, value in found.items() if "-imported/" not in f"{name}/"}
    second = {name.replace("imported-2", "imported"): value for name, value in second.items()}
    return [first, second] if len(first) < len(found) else [found]


def same(whole, part):
    assert sorted(part) == sorted(whole)
    assert [name for name in whole if part[name] != whole[name]] == []
    return True


def contents(folder):
    """What a command made: bytes, or documents without what is measured. Locks may stay; a report
    and a manifest say such things everywhere."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            found[name] = None
        elif path.name in ("report.html", "manifest.json"):
            found[name] = "there"
        elif path.suffix in (".json", ".jsonl"):
            text = path.read_text().replace(str(folder), "")
            lines = text.splitlines() if path.suffix == ".jsonl" else [text]
            found[name] = [timeless(json.loads(line)) for line in lines]
        elif not path.name.endswith(".lock"):
            found[name] = path.read_bytes()
    return found


def timeless(document):
    if isinstance(document, dict):
        return {
            key: timeless(value)
            for key, value in document.items()
            if key not in MEASURED and "second" not in key
        }
    return [timeless(item) for item in document] if isinstance(document, list) else document


def at(*wanted):
    """Chooses the first event that begins with each of the texts."""

    def choose(lines):
        return [next(i for i, line in enumerate(lines, 1) if line.startswith(w)) for w in wanted]

    return choose


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("sample", ["half writing out/samples.jsonl", "half writing out/.0001-001.png"]),
        ("import unnamed", ["half writing runs/.ddpm"]),
        ("export", ["half writing .out", "after replace .out"]),
        ("fetch", ["half writing home/fetched/paints/large.bin.part",
                   "after replace home/fetched/paints/large.bin"]),
    ],
)  # fmt: skip
def test_killed_at_a_chosen_moment_the_same_command_makes_it_whole(survives, name, moments):
    survives(name, at(*moments))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_the_same_command_makes_it_whole(survives, name):
    draw = random.Random(name)
    survives(
        name, lambda lines: sorted(draw.sample(range(1, len(lines) + 1), min(KILLS, len(lines))))
    )
