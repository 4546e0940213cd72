"""Fixtures for every test: plugins that exist only in one test, and a toy of each kind of thing."""

import gc
import hashlib
import http.server
import os
import re
import subprocess
import sys
import sysconfig
import threading
import venv
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import hypothesis
import numpy as np
import pytest
import torch

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.dataset import Dataset, Example
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Stage, Trainer
from t2i.core.io.tensors import load_tensors
from t2i.core.models.building import build
from t2i.core.models.weights import load_state
from t2i.core.registry.choice import Choice
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DatasetSpec, ModelSpec, TextEncoderSpec
from t2i.core.registry.tables import HOOKS, registry
from t2i.core.settings import Config, DataConfig, ModelConfig, Preset

# A busy machine is no failure: Hypothesis' own limit of 200 ms an example is not for tests that
# write files.
hypothesis.settings.register_profile("t2i", deadline=None)
hypothesis.settings.load_profile("t2i")
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
# No test cuts the power: what a killed process has written stays, synced or not. A run of the toy
# model syncs 94 times, which took a third of its time.
os.fsync = lambda _: None

ALL = (
    "batch_size=4", "steps=9", "checkpoint_every=2", "sample_every=4", "log_every=3", "keep=99",
    "warmup=2",
    "data.val_length=8", "threads=1",
)  # fmt: skip


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """All tests are shared out over processes, whole files at a time; a few that are named are not
    worth their start. More than four would spend their time on importing torch."""
    processors = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return 0 if config.option.file_or_dir or processors < 2 else min(processors, 4)


def pytest_collection_finish():
    """The garbage collector passes over the libraries: they were nearly all of a collection's time,
    and looking for the batch that fits collects several times."""
    import torch._dynamo  # noqa: F401, the first optimizer imports it

    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def small():
    """`small(model, *more)`: settings with which a built-in model takes nine steps in about a
    second; by name."""
    from tests.small import SMALL  # here: processes of tests import this file, too, without pytest

    def settings(model, *more):
        return (*SMALL[model], *ALL, *more)

    settings.models = tuple(SMALL)
    return settings


@pytest.fixture
def canary(tmp_path):
    """A file that hostile files try to remove."""
    path = tmp_path / "canary"
    path.write_text("alive")
    yield path
    assert path.read_text() == "alive"


@pytest.fixture
def plug():
    """`plug(plugin, name)` registers a plugin for the length of one test."""
    r = registry()
    tables = {kind: (dict(r.table(kind).entries), dict(r.table(kind).clashes)) for kind in HOOKS}
    plugins, added = list(r.plugins), []

    def register(plugin, name="test"):
        r.register(plugin, name)
        added.append(plugin)
        assert r.plugins[-1].error is None, r.plugins[-1].error

    yield register
    for kind, (entries, clashes) in tables.items():
        r.table(kind).entries, r.table(kind).clashes = entries, clashes
    r.plugins = plugins
    for plugin in added:
        r._manager.unregister(plugin)


class ToyConfig(ModelConfig):
    """lr and width of the toy model; `first_batch`: batch size of the first of two stages;
    `explode_at` puts a NaN in the loss at a step."""

    lr: float = 0.01
    width: int = 8
    two_stages: bool = False
    first_batch: int | None = None
    explode_at: int | None = None

    @classmethod
    def presets(cls):
        small = {
            "steps": 6,
            "batch_size": 4,
            "image_size": 8,
            "checkpoint_every": 3,
            "sample_every": 100,
        }
        return {
            "tiny": Preset(small, data=("toydata", {}), encoder=("toytext", {})),
            "paper": Preset(
                {**small, "width": 16}, data=("absent-data", {"fold": 3}), encoder=("toytext", {})
            ),
        }


class ToyGenerator(OneShotGenerator):
    """tanh of two linear layers of [noise; sentence]."""

    def __init__(self, config, text, assets=None):
        super().__init__()
        self.image_size, self.noise_shape = config.image_size, (4,)
        self.hidden = torch.nn.Linear(4 + text.sentence, config.width)
        self.out = torch.nn.Linear(config.width, 3 * config.image_size**2)

    def forward(self, noise, text):
        x = self.out(torch.tanh(self.hidden(torch.cat([noise, text.sentence], 1))))
        return torch.tanh(x).view(-1, 3, self.image_size, self.image_size)


class ToyTrainer(Trainer):
    """Two networks, two optimizers, the toy of a GAN: a critic regresses brightness, the generator
    matches images."""

    def __init__(self, config, networks):
        generator, text_encoder = networks.generator, networks.text_encoder
        critic = torch.nn.Linear(3 * config.image_size**2, 1)
        self.config, self.generator = config, generator
        self.modules = {"generator": generator, "text_encoder": text_encoder, "critic": critic}
        trained = [*generator.parameters(), *text_encoder.parameters()]
        self.optimizers = {
            "generator": torch.optim.Adam(trained, config.lr),
            "critic": torch.optim.SGD(critic.parameters(), config.lr, momentum=0.9),
        }
        self.steps = 0

    def step(self, batch, engine):
        z = batch.noise.normal("z", 0, self.generator.noise_shape)
        critic = self.modules["critic"](batch.images.flatten(1)).square().mean()
        engine.update("critic", critic)
        loss = (self.generator(z, batch.text) - batch.images).square().mean()
        if self.config.explode_at is not None and batch.noise.at == self.config.explode_at:
            loss = loss * float("nan")
        engine.update("generator", loss)
        return {"generator": loss, "critic": critic}


def toy_stages(config, text_encoder):
    own = {"batch_size": config.first_batch} if config.first_batch else {}
    first, second, only = ("first", 1.0, own), ("second", 2.0, {}), ("only", 1.0, {})
    chosen = [first, second] if config.two_stages else [only]
    return [
        Stage(name, share, lambda networks: ToyTrainer(config, networks), own)
        for name, share, own in chosen
    ]


class ToyEncoderConfig(Config):
    words: tuple[str, ...] = ()
    frozen: bool = False


class ToyEncoder(TextEncoder):
    """Mean of word vectors; unknown words and padding are row 0."""

    def __init__(self, config):
        super().__init__()
        self.config, self.shape = config, TextShape(5, 5)
        self.table = torch.nn.Embedding(1 + len(config.words), 5).requires_grad_(not config.frozen)

    def encode(self, captions):
        rows = [
            [1 + self.config.words.index(w) if w in self.config.words else 0 for w in c.split()]
            for c in captions
        ]
        length = max(1, *map(len, rows))
        mask = torch.tensor([[i < max(1, len(row)) for i in range(length)] for row in rows])
        tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows]).to(
            self.table.weight.device
        )
        return replace(
            TextFeatures.of(words=self.table(tokens), mask=mask.to(tokens.device)),
            captions=tuple(captions),
        )


class ToyData(Dataset):
    """Images of one colour, named by it; 10 of them."""

    colours = ("red", "green", "blue")

    def __init__(self, config, split):
        self.image_size, self.split = config.image_size, split

    def __len__(self):
        return 10

    def __getitem__(self, index):
        image = np.zeros((self.image_size, self.image_size, 3), np.uint8)
        image[..., index % 3] = 155 + 10 * index
        colour = self.colours[index % 3]
        return Example(
            image,
            (f"a {colour} image", f"{colour} all over"),
            f"{self.split}-{index}",
            {"id": index},
        )

    def fingerprint(self):
        return f"toy-{self.split}-{self.image_size}"


def toy_fit(config, texts):
    return config.model_copy(
        update={"words": tuple(sorted({word for text in texts for word in text.split()}))}
    )


def toy_weights(config, files):
    """The official weights of the toy: its generator's tensors, and a vocabulary that comes with
    them."""
    (file,) = files
    encoder = Choice("toytext", toy_fit(config.encoder.config, ["a red image"]))
    model = build(replace(config, encoder=encoder))
    load_state(model.generator, load_tensors(file, "weights"), f"weights {file}")
    return model


def _toy_module():
    """A plugin whose import paths point into this file, under a module name of its own."""
    module = ModuleType("t2i_toy")
    module.__dict__.update(
        Config=ToyConfig, generator=ToyGenerator, stages=toy_stages, Trainer=ToyTrainer,
        EncoderConfig=ToyEncoderConfig,
        encoder=lambda config, assets: ToyEncoder(config),
        fit=toy_fit, weights=toy_weights,
        DataConfig=DataConfig, data=ToyData,
    )  # fmt: skip
    return module


class ToyPlugin:
    @hookimpl
    def t2i_models(self):
        return [
            ModelSpec(
                name="toy", summary="A toy", config="t2i_toy:Config", generator="t2i_toy:generator",
                stages="t2i_toy:stages", family="one-shot", paper="none", presets=("tiny", "paper"),
                weights="t2i_toy:weights",
            )
        ]  # fmt: skip

    @hookimpl
    def t2i_text_encoders(self):
        return [
            TextEncoderSpec(
                name="toytext", summary="Word vectors", config="t2i_toy:EncoderConfig",
                build="t2i_toy:encoder",
                fit="t2i_toy:fit",
            )
        ]  # fmt: skip

    @hookimpl
    def t2i_datasets(self):
        return [
            DatasetSpec(
                name="toydata", summary="Colours", config="t2i_toy:DataConfig",
                build="t2i_toy:data",
                splits=("train", "val"), needs_dir=False,
            )
        ]  # fmt: skip


@pytest.fixture
def toy(plug, monkeypatch):
    """A toy model `toy` with its encoder `toytext` and data set `toydata`, registered for one
    test."""
    monkeypatch.setitem(sys.modules, "t2i_toy", _toy_module())
    plug(ToyPlugin(), "toy")


class Environment:
    """A virtual environment in `root` that sees, through a .pth file, all that the running one has
    installed. Its pip is the running one's, and installs into it."""

    def __init__(self, root):
        self.root, self.python = root, root / "bin" / "python"
        venv.create(root, with_pip=False, symlinks=True)
        (site,) = root.glob("lib/*/site-packages")
        hosts = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        (site / "host.pth").write_text(
            "import site; " + "; ".join(f"site.addsitedir({host!r})" for host in hosts) + "\n"
        )
        for name, module in {"t2i": "t2i.cli", "pytest": "pytest", "pip": "pip"}.items():
            script = root / "bin" / name  # like the real ones, they import nothing from here
            script.write_text(f'#!/bin/sh\nexec "{self.python}" -P -m {module} "$@"\n')
            script.chmod(0o755)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("T2I_", "PYTEST_"))
        }
        # Nothing is fetched: what building a package takes is there, and an index is not.
        pip = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_CACHE_DIR": "1"}
        own = {"T2I_HOME": str(root / "home"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.variables = (
            kept | pip | own | {"PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        )

    def __call__(self, *command, cwd, **variables):
        """Runs a command in a folder."""
        return subprocess.run(
            list(map(str, command)), cwd=cwd, env=self.variables | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip

    def check(self, *command, cwd, **variables):
        """Runs a command that must succeed; returns what it said on stdout."""
        done = self(*command, cwd=cwd, **variables)
        assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    return Environment(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture(scope="session")
def wheel():
    """`wheel(folder, name, version, requires=(), files={}, points={})` writes a wheel by hand, and
    returns its path.
    files: module, or path with an ending -> source. points: entry point of the group t2i ->
    module."""

    def write(folder: Path, name, version="1.0", requires=(), files=None, points=None):
        stem = name.replace("-", "_")
        info = f"{stem}-{version}.dist-info"
        needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
        inside = {
            module if "." in module else f"{module}.py": source
            for module, source in (files or {}).items()
        }
        inside[f"{info}/METADATA"] = (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
        )
        inside[f"{info}/WHEEL"] = (
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        if points:
            lines = "".join(f"{point} = {module}\n" for point, module in points.items())
            inside[f"{info}/entry_points.txt"] = f"[t2i]\n{lines}"
        inside[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*inside, f"{info}/RECORD"])
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stem}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for place, text in inside.items():
                archive.writestr(place, text)
        return path

    return write


class Server:
    """A server on the loopback device. files: path -> bytes, served with an ETag and, unless
    `ranges` is off, in parts; with their length, unless `lengths` is off.

    faults: path -> what goes wrong with the next requests for it, one after the other: "cut" (half
    of what was asked for, then the end), "wrong" (other bytes), a status such as 503, or a URL to
    go to. headers: path -> more headers.
    asked: (path, header Range).
    """

    def __init__(self):
        self.files, self.faults, self.headers, self.asked = {}, {}, {}, []
        self.ranges = self.etags = self.lengths = True
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_): ...

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.http.server_port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request):
        path = request.path.partition("?")[0]
        self.asked.append((path, request.headers.get("Range")))
        fault = (self.faults.get(path) or [None]).pop(0)
        body = self.files.get(path)
        if body is None or isinstance(fault, int):
            request.send_response(fault or 404)
            for name, value in self.headers.get(path, {}).items():
                request.send_header(name, value)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if fault and "://" in fault:
            request.send_response(302)
            request.send_header("Location", fault)
            request.end_headers()
            return
        etag, start = '"' + hashlib.sha256(body).hexdigest()[:16] + '"', 0
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if asked and self.ranges and request.headers.get("If-Range", etag) == etag:
            start = int(asked[1])
            if start >= len(body):
                request.send_error(416)
                return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.etags:
            request.send_header("ETag", etag)
        for name, value in self.headers.get(path, {}).items():
            request.send_header(name, value)
        if self.lengths:
            request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        sent = body[start:]
        if request.command == "GET":
            sent = (
                bytes(len(sent))
                if fault == "wrong"
                else sent[: len(sent) // 2]
                if fault == "cut"
                else sent
            )
            request.wfile.write(sent)


@pytest.fixture
def server(monkeypatch):
    """A server on the loopback device: see Server."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()
