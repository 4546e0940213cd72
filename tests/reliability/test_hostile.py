"""Files that someone else wrote, to do harm: none runs anything, writes anywhere but where it
should, or fills memory.

Weights of the papers' authors and their pickles: tests/plugins/common/weights/test_legacy.py. Each
data set's own formats (tar shards, archives, broken images) are tested with the data set.
"""

import json
import os
import pickle
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from t2i.cli.main import main
from t2i.core.errors import UserError
from t2i.core.io.sealed import MANIFEST, seal
from t2i.core.models.loading import load
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, resolve_config
from t2i.plugins.common.clip.config import ClipVisionConfig
from t2i.plugins.common.clip.vision import build_clip

MEMORY = 600 * 2**20
OTHERS = (
    "galip",
    "stackgan",
    "stackganv2",
    "attngan",
    "dmgan",
    "gancls",
    "biggan",
    "stylegan",
)  # that read weights of the papers' authors


class Payload:
    """Unpickled without care, it removes the canary."""

    def __init__(self, canary):
        self.path = str(canary)

    def __reduce__(self):
        return os.unlink, (self.path,)


@pytest.fixture
def run(reference, tmp_path):
    """A copy of a finished run."""
    shutil.copytree(reference("dfgan"), tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def refused(capfd, tmp_path, monkeypatch):
    """`refused(*arguments)` -> the one line with which a command, run here, has refused."""
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))

    def go(*arguments):
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        lines = err.splitlines()
        assert (code, out) == (2, ""), (code, out, err)
        assert lines[-1].startswith("error: "), err
        assert sum(line.startswith("error: ") for line in lines) == 1
        assert "Traceback" not in err
        return lines[-1]

    return go


def resealed(folder):
    """The manifest as it would be if the folder had always been like this: who writes the files
    writes it too."""
    (folder / MANIFEST).unlink()
    seal(folder)


# --- pickles under other names --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["generator.safetensors", "text_encoder.safetensors", "config.json", MANIFEST]
)
def test_a_pickle_by_another_name_in_a_model(run, canary, refused, name):
    (run / "model" / name).write_bytes(pickle.dumps(Payload(canary)))
    if name != MANIFEST:
        resealed(run / "model")
    assert name in refused("sample", "--run", run, "-p", "x")


@pytest.mark.parametrize("name", ["state.json", "optimizers.safetensors", "random-0.safetensors"])
def test_a_pickle_by_another_name_in_a_checkpoint(run, canary, refused, name):
    (run / "summary.json").unlink()
    for folder in (run / "checkpoints").iterdir():
        if folder.name != "step-4":
            shutil.rmtree(folder)
    (run / "checkpoints" / "step-4" / name).write_bytes(pickle.dumps(Payload(canary)))
    resealed(run / "checkpoints" / "step-4")
    line = refused("train", "--resume", run)
    assert name in line or "no sound checkpoint" in line


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_object_arrays_and_pickles_as_features(run, canary, refused, tmp_path, suffix):
    path = tmp_path / f"features{suffix}"
    np.save(tmp_path / "o.npy", np.array([Payload(canary), None], dtype=object), allow_pickle=True)
    for data in ((tmp_path / "o.npy").read_bytes(), pickle.dumps(Payload(canary))):
        path.write_bytes(data)
        line = refused("sample", "--run", run, "--features", path)
        assert line.startswith("error: features")
        assert str(path) in line


def test_an_array_whose_header_is_code_or_promises_much(run, canary, refused, tmp_path):
    for header in (
        f"{{'descr': __import__('os').unlink({str(canary)!r}), 'fortran_order': False, 'shape': (1, 1)}}\n",  # noqa: E501
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000)}\n",
    ):
        data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
        (tmp_path / "f.npy").write_bytes(data + b"\0" * 64)
        assert "f.npy" in refused("sample", "--run", run, "--features", tmp_path / "f.npy")


@pytest.mark.parametrize(
    "model", ["dfgan", *(pytest.param(m, marks=pytest.mark.slow) for m in OTHERS)]
)
def test_weights_of_authors_that_are_payloads(canary, refused, tmp_path, model):
    torch.save({"netG": Payload(canary)}, tmp_path / "netG.pth")
    assert refused("import", "--model", model, tmp_path / "netG.pth", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_that_is_a_payload(canary, refused, tmp_path):
    (tmp_path / "captions.pickle").write_bytes(pickle.dumps([[], [], Payload(canary), {}]))
    sets = ("--set", f"encoder.captions={tmp_path / 'captions.pickle'}", "--steps", "1")
    line = refused(
        "train", "--model", "attngan", "--encoder", "damsm", *sets, "--out", tmp_path / "out"
    )
    assert "captions.pickle: not plain lists" in line


# --- names that lead to code ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["os:system", "../../evil", "t2i.plugins.models.dfgan.networks:build", "__import__('os')"],
)
@pytest.mark.parametrize("key", ["model", "encoder", "sampler"])
def test_a_configuration_that_names_an_import_path(run, canary, refused, key, name):
    document = json.loads((run / "model" / "config.json").read_text())
    document["run"][key] = name if key == "model" else {**document["run"][key], "name": name}
    (run / "model" / "config.json").write_text(json.dumps(document))
    resealed(run / "model")
    assert refused("sample", "--run", run, "-p", "x")
    with pytest.raises(UserError):
        RunConfig.parse(document["run"], "config.json")


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.unlink [{canary}]",
        "steps: !!python/object/apply:os.unlink [{canary}]",
        "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, "
        "*b]\nsteps: [*c, *c]",
    ],
)
def test_yaml_that_would_run_or_unfold(canary, refused, tmp_path, text):
    (tmp_path / "c.yaml").write_text(text.replace("{canary}", str(canary)))
    line = refused("train", "--model", "dfgan", "--config", tmp_path / "c.yaml", "--dry-run")
    assert len(line) < 600
    assert refused(
        "train",
        "--model",
        "dfgan",
        "--set",
        f"steps=!!python/object/apply:os.unlink [{canary}]",
        "--dry-run",
    )


def clip_encoder(folder):
    choice = registry().encoders.choose("clip", {"weights": str(folder)}, "encoder")
    for assets in (folder, None):
        yield lambda assets=assets: import_object(registry().encoders["clip"].build)(
            choice.config, assets
        )


def clip_features(folder):
    choice = registry().features.choose("clip", {"weights": str(folder)}, "features")
    yield lambda: import_object(registry().features["clip"].build)(choice.config)


def clip_images(folder):
    for assets in (folder, None):
        yield lambda assets=assets: build_clip(
            ClipVisionConfig(weights=str(folder)), 8, assets, "model 'x'"
        )


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize(
    ("doors", "who"),
    [
        (clip_encoder, "text encoder 'clip'"),
        (clip_features, "features 'clip'"),
        (clip_images, "model 'x'"),
    ],
)
def test_a_network_that_names_a_kernel_from_the_hub(tmp_path, doors, who, key):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "clip", "x": {key: "evil/kernel"}})
    )
    for build in doors(tmp_path):
        with pytest.raises(
            UserError, match=f"^{who}: config.json of .* names the kernel 'evil/kernel'"
        ):
            build()


def test_a_pipeline_whose_parts_come_from_elsewhere(canary, refused, tmp_path, monkeypatch):
    (tmp_path / "evil_parts.py").write_text(f"import os; os.unlink({str(canary)!r})")
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "config"
    folder.mkdir()
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["evil_parts", "UNet2DConditionModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    whole = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.ones(8, 4, 3, 3),
        "cond_stage_model.transformer.text_model.final_layer_norm.weight": torch.ones(8),
        "first_stage_model.decoder.conv_in.weight": torch.ones(8, 4, 3, 3),
    }
    save_file(whole, tmp_path / "sd.safetensors")
    line = refused(
        "sample", "--run", tmp_path / "sd.safetensors", "--set", f"config={folder}", "-p", "x"
    )
    assert "'unet' needs code from 'evil_parts'" in line


# --- bombs ----------------------------------------------------------------------------------------


def archive(path, *entries):
    """A zip of (name, bytes, compression)."""
    with zipfile.ZipFile(path, "w") as file:
        for name, data, compression in entries:
            file.writestr(name, data, compression)


def small_storage(path):
    """A tensor of 10^12 numbers that all lie in one place."""
    torch.save({"netG": {"w": torch.ones(1).expand(10**12)}}, path)


def lying_archive(path):
    """An archive whose directory tells of less than it holds."""
    archive(path, ("a/data.pkl", b"\0" * 10**8, zipfile.ZIP_DEFLATED))
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 10**8), struct.pack("<I", 10)))


def overlapping(path):
    """Many names for the same bytes of the file."""
    archive(path, *((f"a/data/{i}", b"\0" * 10**6, zipfile.ZIP_STORED) for i in range(2)))
    data = path.read_bytes()
    first = data.index(b"PK\x01\x02")
    second, end = data.index(b"PK\x01\x02", first + 4), data.index(b"PK\x05\x06")
    entries = data[first:second] * 5000
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 5000, 5000, len(entries), first, 0)
    path.write_bytes(data[:first] + entries + tail)
    assert end


@pytest.mark.parametrize("bomb", [small_storage, lying_archive, overlapping])
def test_an_archive_that_unfolds_is_refused_within_bounded_memory(nursery, tmp_path, bomb):
    bomb(tmp_path / "netG.pth")
    done = nursery(
        "import",
        "--model",
        "dfgan",
        tmp_path / "netG.pth",
        "--out",
        tmp_path / "out",
        memory=MEMORY,
    )
    assert done.code == 2, done.err
    assert done.err.splitlines()[-1].startswith(f"error: weights {tmp_path / 'netG.pth'}")


def png_of(side):
    """A PNG that says it is that large, of zeros."""
    rows = zlib.compress(b"\0" * (side + 1) * min(side, 1000))

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_a_image_that_unfolds_is_refused_within_bounded_memory(nursery, reference, tmp_path):
    (tmp_path / "a.png").write_bytes(png_of(60_000))
    command = (
        "sample",
        "--run",
        reference("dfgan"),
        "--interpolate",
        tmp_path / "a.png",
        tmp_path / "a.png",
    )
    done = nursery(*command, "--out", tmp_path / "out", memory=MEMORY)
    assert done.code == 2, done.err
    assert f"image {tmp_path / 'a.png'}" in done.err
    assert not (tmp_path / "out").exists()


def transparent(side, kind, depth):
    """A PNG of that size with transparency, of zeros."""
    row, packer = b"\0" * (side * depth + 1), zlib.compressobj()
    rows = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])

    def chunk(name, data):
        end = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + end

    header = struct.pack(">IIBBBBB", side, side, 8, kind, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\0") if kind == 3 else b""
    parts = (chunk(b"IHDR", header), palette, chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "depth"), [(6, 4), (3, 1)])
def test_the_largest_transparent_image_takes_bounded_memory(nursery, tmp_path, kind, depth):
    (tmp_path / "a.png").write_bytes(transparent(2**13, kind, depth))
    script = (
        "from pathlib import Path; from t2i.core.io.images import decode; "
        f"print(decode(Path({str(tmp_path / 'a.png')!r}), 8, where='a').mean())"
    )
    done = nursery(script=script, memory=500 * 2**20)
    assert done.code == 0, done.err
    assert done.out.strip() == "255.0"


def test_out_of_memory_on_the_processor_is_a_line(nursery, reference, tmp_path):
    images = ("-n", "60000", "--batch-size", "60000")
    command = ("sample", "--run", reference("dfgan"), "-p", "x", *images, "--out", tmp_path / "out")
    done = nursery(*command, memory=400 * 2**20)
    assert done.code == 2, done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("error: out of memory (")
    assert "use a smaller --batch-size" in last


# --- poisoned caches ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", ["no keys", "too few captions", "nothing", "other tensors", "pickle"]
)
def test_stored_features_that_someone_else_wrote(tmp_path, canary, how):
    """They are computed anew, or refused in a line; what they say is never more than numbers and
    strings."""
    from t2i.core.engine.stored import Store

    documents = {
        "no keys": {"captions": [["x"]]},
        "too few captions": {"keys": ["a"], "captions": [[]]},
        "nothing": [],
    }
    tensors = {"encoded": torch.ones(1, 1, 4)} if how != "other tensors" else {"x": torch.ones(1)}
    (tmp_path / "s").mkdir()
    save_file(tensors, tmp_path / "s" / "part-00000.safetensors")
    document = documents.get(how, {"keys": ["a"], "captions": [["x"]]})
    (tmp_path / "s" / "part-00000.json").write_text(json.dumps(document))
    if how == "pickle":
        (tmp_path / "s" / "part-00000.safetensors").write_bytes(pickle.dumps(Payload(canary)))
    seal(tmp_path / "s")
    with pytest.raises(UserError, match="stored features"):
        Store(tmp_path / "s", 0)


# --- ways out of a folder -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples", "checkpoints/step-99", "config.json"])
def test_links_that_lead_out_of_a_run_are_refused_before_anything_is_written(
    run, canary, refused, tmp_path, name
):
    (run / "summary.json").unlink()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    path = run / name
    if path.is_dir():
        shutil.rmtree(path)
    content = path.read_bytes() if path.is_file() else b""
    path.unlink(missing_ok=True)
    if content:
        (outside / "file").write_bytes(content)
    path.symlink_to(outside / "file" if content else outside)
    before = {p.name: p.read_bytes() for p in outside.iterdir()}
    assert f"{path} is a link that leads out of {run}" in refused("train", "--resume", run)
    assert {p.name: p.read_bytes() for p in outside.iterdir()} == before


def test_a_manifest_cannot_point_out_of_its_folder(run, refused, tmp_path):
    manifest = json.loads((run / "model" / MANIFEST).read_text())
    manifest["files"]["../../canary"] = {"size": 5, "sha256": "0" * 64}
    (run / "model" / MANIFEST).write_text(json.dumps(manifest))
    assert "is missing" in refused("sample", "--run", run, "-p", "x")


def test_prompts_never_name_files(run, tmp_path, capfd):
    prompts = ["../../x", "/etc/passwd", "a/b", "..", "x\0y", "con", "~"]
    words = [word for prompt in prompts for word in ("-p", prompt)]
    assert main(["sample", "--run", str(run), *words, "--out", str(tmp_path / "o"), "--json"]) == 0
    files = sorted(path.name for path in (tmp_path / "o").rglob("*"))
    assert files == [*(f"{i:04}-000.png" for i in range(len(prompts))), "grid.png", "samples.jsonl"]
    records = [
        json.loads(line) for line in (tmp_path / "o" / "samples.jsonl").read_text().splitlines()
    ]
    assert [record["prompt"] for record in records] == prompts


def test_a_run_is_loaded_from_links_to_it(run, tmp_path):
    """Reading through links is harmless, and how the hub's cache looks."""
    for path in list((run / "model").iterdir()):
        if path.is_file():
            path.rename(tmp_path / path.name)
            path.symlink_to(tmp_path / path.name)
    assert load(run, "cpu").sample(["x"])


def test_what_is_configured_is_a_name(canary):
    """Every name in a configuration is looked up among those that plugins declare; nothing is
    imported for it."""
    for key in ("data", "encoder", "sampler"):
        with pytest.raises(UserError):
            resolve_config("dfgan", overrides={key: {"name": f"os:unlink:{canary}"}})
