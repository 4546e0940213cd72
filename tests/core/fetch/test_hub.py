"""Models of the hub: which files are fetched, and what is said where none are. The hub is a server
on the loopback device."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from t2i.core.fetch import hub
from t2i.core.fetch.hub import HubName, wanted_files

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "image_encoder": [None, None],
    "requires_safety_checker": True,
}
FILES = [
    "model_index.json", "README.md", ".gitattributes", "v1-5.ckpt", "v1-5-pruned.safetensors",
    "unet/config.json", "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors", "unet/model.onnx",
    "vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_flax_model.msgpack",
    "tokenizer/tokenizer_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt",
    "safety_checker/config.json", "safety_checker/model.safetensors",
    "image_encoder/model.safetensors", "code/run.py",
]  # fmt: skip
WANTED = {
    "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors",
    "tokenizer/tokenizer_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt",
    "safety_checker/config.json",
}  # fmt: skip


def test_only_the_parts_of_a_pipeline_are_wanted_each_once():
    assert set(wanted_files(FILES, INDEX)) == WANTED


def test_all_shards_of_one_variant_are_wanted():
    shards = [f"unet/model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    half = [f"unet/model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = {"unet": ["diffusers", "UNet"]}
    assert set(wanted_files([*half, *shards], index)) == {"model_index.json", *shards}
    assert set(wanted_files(half, index)) == {"model_index.json", *half}


def test_a_pipeline_without_folders_keeps_its_parts_in_the_root():
    files = ["model_index.json", "config.json", "diffusion_pytorch_model.safetensors", "x.bin"]
    index = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    assert set(wanted_files(files, index)) == {*files} - {"x.bin"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b", HubName("a/b")),
        ("a/b@refs/pr/7", HubName("a/b", "refs/pr/7")),
        ("https://huggingface.co/a/b", HubName("a/b")),
        ("https:/hf.co/a/b/tree/v1", HubName("a/b", "v1")),  # as pathlib writes it
        ("hf://a/b", HubName("a/b")),
        ("a", None), ("a/b/c", None), ("./a/b", None), ("../b", None), ("/a/b", None),
        ("~/b", None), ("a b/c", None), ("a/b@../c", None), ("", None),
    ],
)  # fmt: skip
def test_names(text, expected):
    assert HubName.parse(text) == expected


class Hub:
    """A hub on the loopback device with repositories of one revision each."""

    def __init__(self, server, home):
        self.server, self.home = server, home

    def host(self, name, bodies, revision="main", commit="1" * 40):
        files, api = self.server.files, f"/api/models/{name}"
        listed = {"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in bodies]}
        tree = [
            {"type": "file", "path": path, "size": len(body), "oid": commit}
            for path, body in bodies.items()
        ]
        for asked in (revision, commit):
            files[f"{api}/revision/{quote(asked, safe='')}"] = json.dumps(listed).encode()
            files[f"{api}/tree/{quote(asked, safe='')}"] = json.dumps(tree).encode()
        for path, body in bodies.items():
            place = f"/{name}/resolve/{commit}/{path}"
            files[place] = body
            self.server.headers[place] = {"X-Repo-Commit": commit}

    def fault(self, path, status, code):
        self.server.faults[path] = [status] * 20
        self.server.headers[path] = {"X-Error-Code": code}

    def __call__(self, name, opens="True", weights="True", **more):
        """`hub_model` in a process of its own, because huggingface_hub reads its settings once."""
        source = (
            "import sys\n"
            "from t2i.core.errors import UserError\n"
            "from t2i.core.fetch.hub import HubName, hub_model\n"
            "try:\n"
            f"    print(hub_model(HubName.parse({name!r}), lambda _: {opens}, weights={weights}))\n"
            "except UserError as error:\n"
            "    print('error:', error)\n"
        )
        variables = {
            "PATH": "/usr/bin:/bin", "HF_ENDPOINT": self.server.url, "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1", "T2I_HOME": str(self.home / "t2i"),
            "NO_PROXY": "127.0.0.1", "HOME": str(self.home), **more,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", source], env=variables, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        return line


@pytest.fixture
def loop(server, tmp_path):
    return Hub(server, tmp_path / "hf")


def inside(folder):
    whole = Path(folder)
    return {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()}


def test_a_pipeline_is_fetched_once_and_then_used_without_a_network(loop):
    bodies = {name: f"of {name}".encode() for name in FILES}
    loop.host("maker/brush", bodies | {"model_index.json": json.dumps(INDEX).encode()})
    folder = loop("maker/brush")
    assert inside(folder) == WANTED
    asked = len(loop.server.asked)
    assert loop("maker/brush") == folder
    assert len(loop.server.asked) == asked  # the cache is complete: nothing is asked
    assert loop("maker/brush@main", HF_HUB_OFFLINE="1") == folder
    # A file that is lost is fetched again, and without a network its lack is no silent success.
    (Path(folder) / "unet/diffusion_pytorch_model.safetensors").unlink()
    assert "the hub cannot be reached" in loop("maker/brush", HF_HUB_OFFLINE="1")
    assert loop("maker/brush") == folder
    assert inside(folder) == WANTED


def test_weights_that_no_plugin_opens_are_not_fetched(loop):
    bodies = dict.fromkeys(FILES, b"{}")
    loop.host("maker/brush", bodies | {"model_index.json": json.dumps(INDEX).encode()})
    line = loop("maker/brush", opens="False")
    assert "maker/brush: it is a StableDiffusionPipeline of diffusers, which no model" in line
    assert inside(loop("maker/brush", weights="False")) == {
        name for name in WANTED if not name.endswith(".safetensors")
    }
    assert not any(path.endswith(".safetensors") for path, _ in loop.server.asked)


def test_a_run_of_ours(loop):
    files = {"generator.safetensors": {}, "config.json": {}, "text_encoder/merges.txt": {}}
    bodies = dict.fromkeys(files, b"x") | {
        "manifest.json": json.dumps({"files": files}).encode(),
        "README.md": b"a card", "evil.bin": b"x",
    }  # fmt: skip
    loop.host("maker/model", bodies)
    run = {f"model/{name}": body for name, body in bodies.items()}
    heavy = {"checkpoints/step-6/optimizers.safetensors": b"x", "samples/step-6.png": b"x"}
    loop.host("maker/run", run | heavy)
    assert inside(loop("maker/model")) == {*files, "manifest.json"}
    folder = loop("maker/run")
    assert inside(folder) == {f"model/{name}" for name in (*files, "manifest.json")}
    assert loop("maker/run", HF_HUB_OFFLINE="1") == folder


@pytest.mark.parametrize(
    ("bodies", "line"),
    [
        ({"README.md": b"x"}, "is no pipeline of diffusers and no run of t2i: it is empty"),
        (
            {"config.json": b"{}", "model.safetensors": b"x"},
            "no run of t2i: it holds config.json, model.safetensors",
        ),
        (
            {"model_index.json": json.dumps(INDEX).encode(), "unet/a.bin": b"x"},
            "it has no safetensors, and pickles, which can run code, are not fetched",
        ),
    ],
)
def test_what_cannot_be_read_is_said(loop, bodies, line):
    loop.host("maker/brush", bodies)
    assert line in loop("maker/brush")


def test_why_the_hub_gave_nothing(loop):
    index = {"model_index.json": json.dumps(INDEX).encode(), "unet/x.safetensors": b"x"}
    loop.host("maker/gated", index)
    loop.fault(f"/maker/gated/resolve/{'1' * 40}/model_index.json", 403, "GatedRepo")
    loop.host("maker/brush", index)
    loop.fault("/api/models/maker/brush/revision/v9", 404, "RevisionNotFound")
    loop.fault("/api/models/maker/none/revision/main", 404, "RepoNotFound")
    assert "accept its terms at https://huggingface.co/maker/gated, then log in" in loop(
        "maker/gated"
    )
    assert "has no revision 'v9'" in loop("maker/brush@v9")
    assert "no such folder here, and the hub has no such model" in loop("maker/none")
    for more in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        line = loop("maker/none", **more)
        assert "the hub cannot be reached" in line
        assert "HF_HUB_OFFLINE, HF_ENDPOINT" in line


def test_a_half_fetched_pipeline_is_not_complete(tmp_path):
    for name in WANTED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(INDEX if name == "model_index.json" else {}))
    assert hub._complete(tmp_path)
    for name in WANTED - {"model_index.json", "safety_checker/config.json"}:
        body = (tmp_path / name).read_text()
        (tmp_path / name).unlink()
        if name not in ("unet/config.json", "vae/config.json", "tokenizer/tokenizer_config.json"):
            assert not hub._complete(tmp_path), name
        (tmp_path / name).write_text(body)
