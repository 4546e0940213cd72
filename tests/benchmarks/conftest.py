"""A benchmark of toys: coloured squares, a metric that reads colours, and training that writes
files at once."""

import json
import sys
from types import MappingProxyType, ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from t2i.benchmarks import runner
from t2i.benchmarks.run import trained_run as trained_run_module
from t2i.benchmarks.run.reporter import SilentBenchmark
from t2i.core.interfaces.dataset import Dataset, Example
from t2i.core.interfaces.scoring import (
    Benchmark,
    FeatureExtractor,
    Measure,
    Metric,
    PromptSet,
    proportion_interval,
)
from t2i.core.io.json_files import write_json
from t2i.core.models.building import build
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import BenchmarkSpec, DatasetSpec, FeatureSpec, MetricSpec
from t2i.core.runs.folder import Run
from t2i.core.settings import Config, DataConfig

COLOURS = {"red": 0, "green": 1, "blue": 2}


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Toys gain nothing by a second thread, and wait for it long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


class RandomCnn(FeatureExtractor):
    """A small convolutional network with random frozen weights; `calls` counts the images it has
    seen."""

    name, weights_sha256, dim = "random-cnn", "0" * 64, 12
    layers = MappingProxyType({"first": slice(0, 4), "rest": slice(4, 12)})
    calls = 0

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.body = torch.nn.Sequential(
                torch.nn.Conv2d(3, 8, 3, 2, 1),
                torch.nn.ReLU(),
                torch.nn.Conv2d(8, 12, 3, 2, 1),
                torch.nn.ReLU(),
            )

    def forward(self, images):
        RandomCnn.calls += len(images)
        return (
            self.body(images.float() / 255).mean((2, 3)) + 0.01 * images.float().flatten(1)[:, :12]
        )


class Squares(Dataset):
    """Squares of one noisy colour that the caption names; every image has variants."""

    def __init__(self, config, split):
        self.image_size, self.split, self.endless = config.image_size, split, split == "train"

    def __len__(self):
        return 60

    def image(self, index, number):
        image = np.random.default_rng([index, number, len(self.split)]).integers(
            0, 60, (self.image_size,) * 2 + (3,)
        )
        image[..., index % 3] += 180
        return image.astype(np.uint8)

    def __getitem__(self, index):
        return Example(
            self.image(index, 0),
            (f"a {list(COLOURS)[index % 3]} square",),
            f"{self.split}-{index}",
        )

    def variant(self, index, number):
        return Example(
            self.image(index, number), self[index].captions, f"{self.split}-{index}-{number}"
        )

    def fingerprint(self):
        return f"squares-{self.split}-{self.image_size}"


class NoMetricConfig(Config):
    pass


class ColourRight(Metric):
    """Percentage of images whose strongest channel is the colour that the caption names."""

    better = MappingProxyType({"all": "higher", "red": "higher"})
    networks = ("published/judge",)

    def __init__(self, config):
        self.right = self.of = 0

    def update(self, images):
        strongest = images.images.mean((1, 2)).argmax(1)
        wanted = [COLOURS[caption.split()[1]] for caption in images.captions]
        self.right += int((strongest == np.array(wanted)).sum())
        self.of += len(wanted)

    def compute(self):
        return {"all": 100 * self.right / self.of}

    def intervals(self):
        return {"all": proportion_interval(self.right, self.of)}


def squares_benchmark(config, protocol):
    return Benchmark(
        name="squares",
        protocol=protocol,
        dataset="squares",
        image_size=8,
        prompts=(
            PromptSet("val", "val", 12, headline=True, about="Squares."),
            PromptSet("other", "other", 6),
        ),
        measures=(
            Measure("colour-right", shown={"all": "all right %"}, bars=("all",)),
            Measure("fid", {"features": "random"}),
            Measure("kid", {"features": "random", "subset_size": 8, "subsets": 5}),
            Measure("prc", {"features": "random/rest"}),
            Measure("diversity", {"features": "pixels"}),
        ),
        headline=("colour-right", "all"),
        default_models=(("absent", "toy"), ("toy",)),
        minutes=1.0,
        reference=30,
        train={},
        variety=(4, 3),
        grid=(2, 2),
        grid_captions=("a purple dream",),
    )


class SquaresPlugin:
    @hookimpl
    def t2i_datasets(self):
        return [
            DatasetSpec(
                name="squares", summary="Squares", config="t2i_squares:DataConfig",
                build="t2i_squares:Squares",
                splits=("train", "val", "other"), needs_dir=False,
            )
        ]  # fmt: skip

    @hookimpl
    def t2i_features(self):
        return [
            FeatureSpec(
                name="random",
                summary="Random",
                config="t2i_squares:Config",
                build="t2i_squares:random",
            )
        ]

    @hookimpl
    def t2i_metrics(self):
        return [
            MetricSpec(
                name="colour-right",
                summary="Colours",
                config="t2i_squares:Config",
                build="t2i_squares:ColourRight",
            )
        ]

    @hookimpl
    def t2i_benchmarks(self):
        return [
            BenchmarkSpec(
                name="squares", summary="Squares", config="t2i_squares:Config",
                build="t2i_squares:benchmark",
                protocols=("tiny", "other"),
            )
        ]  # fmt: skip


def squares_module():
    """A plugin whose import paths point into this file, under a module name of its own."""
    module = ModuleType("t2i_squares")
    module.__dict__.update(
        Config=NoMetricConfig, DataConfig=DataConfig, Squares=Squares, ColourRight=ColourRight,
        benchmark=squares_benchmark, random=lambda config: RandomCnn(),
    )  # fmt: skip
    return module


@pytest.fixture
def squares(plug, toy, monkeypatch):
    """The benchmark `squares` and the model `toy`, registered for one test."""
    monkeypatch.setitem(sys.modules, "t2i_squares", squares_module())
    plug(SquaresPlugin(), "squares")


class FakeEngine:
    """Stands in for t2i.core.engine: fresh weights are a trained model. Notes what it was asked to
    do."""

    def __init__(self):
        self.trained, self.resumed = [], []

    def train(
        self, config, out, *, reporter=None, command="", seed=None, observer=None, examining=None
    ):
        self.trained.append((config, out))
        return finished(out, config, seed)

    def resume(self, path, *, reporter=None, observer=None, examining=None):
        self.resumed.append(path)
        return finished(path, Run(path).config())


def finished(out, config, seed=None):
    torch.manual_seed(config.settings.seed if seed is None else seed)
    model = build(config)
    model.save(out / "model")
    write_json(out / "config.json", {"format": 1, "run": config.dump()})
    lines = [
        {
            "stage": "only",
            "step": i,
            "losses": {"g": 1 / i, "d": 2.0},
            "lr": {"g": 0.1},
            "seconds": 10.0 * i,
        }
        for i in range(1, 5)
    ]
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    trained = sum(p.numel() for p in model.generator.parameters())
    write_json(
        out / "summary.json",
        {
            "steps": 4, "images": 16, "seconds": 40.0, "wall_seconds": 50.0,
            "images_per_second": 0.4,
            "parameters": {"all": trained + 9, "trained": trained, "generator": trained},
            "peak_memory_bytes": 2**28, "stages": [], "device": "cpu", "precision": "no",
            "threads": 1,
        },
    )  # fmt: skip
    return Run(out)


@pytest.fixture
def engine(monkeypatch):
    fake = FakeEngine()
    monkeypatch.setattr(
        trained_run_module, "engine", SimpleNamespace(train=fake.train, resume=fake.resume)
    )
    return fake


@pytest.fixture
def trained_run():
    """`trained_run(out, config)` writes a run as training leaves it."""
    return finished


@pytest.fixture
def unwritten(monkeypatch):
    """The report's plots take longer than all the rest; test_report.py looks at them."""
    monkeypatch.setattr(runner, "write_report", lambda results: None)


class Words(SilentBenchmark):
    """A reporter that remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def words():
    return Words()


@pytest.fixture
def random_cnn():
    return RandomCnn
