"""Benchmarks of prompts alone: fetched from a server, sampled and judged without real images."""

import hashlib
import json
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch

from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.benchmarks.run.chosen_benchmark import find_benchmark
from t2i.benchmarks.run.plan import make_plan
from t2i.benchmarks.runner import run_benchmark
from t2i.benchmarks.score.available_measures import with_what_is_there
from t2i.benchmarks.score.scorer import Scorer
from t2i.core.errors import UserError
from t2i.core.fetch.downloads import fetch
from t2i.core.interfaces.scoring import PairedExtractor
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.features.geneval.features import ObjectChecks
from t2i.plugins.features.geneval.prompts import TAGS, read_prompts
from t2i.plugins.features.geneval.rules import Found

pytestmark = pytest.mark.usefixtures("squares")


class Brightness(PairedExtractor):
    """A judge that reads an image with its caption: brightness times the number of words."""

    name, weights_sha256, dim = "brightness", "1" * 64, 1
    networks = ("somebody/brightness",)

    def of_pairs(self, images, captions):
        words = torch.tensor([len(caption.split()) for caption in captions])
        return (images.float().mean((1, 2, 3)) * words)[:, None]


def replaced(monkeypatch, name, make):
    """Build the features `name` by `make(config)`."""
    monkeypatch.setitem(sys.modules, f"t2i_fake_{name}", SimpleNamespace(build=make))
    spec, origin = registry().features.entries[name]
    monkeypatch.setitem(
        registry().features.entries, name,
        (type(spec)(**{**spec.__dict__, "build": f"t2i_fake_{name}:build"}), origin),
    )  # fmt: skip


@pytest.fixture
def judge(monkeypatch):
    """PickScore's place is taken by a judge that needs no weights."""
    replaced(monkeypatch, "pickscore", lambda config: Brightness())


def table(folder, count=200):
    folder.mkdir(exist_ok=True)
    rows = "".join(f'"a {"very " * (i % 3)}red square, no. {i}",Colors\n' for i in range(count))
    (folder / "DrawBench.csv").write_text("Prompts,Category\n" + rows)
    return folder


@pytest.fixture
def toy_run(tmp_path, trained_run):
    def write(**settings):
        config = resolve_config("toy", overrides={"image_size": 8, **settings})
        (tmp_path / "run").mkdir()
        return trained_run(tmp_path / "run", config).path

    return write


def test_a_model_is_judged_on_prompts_without_real_images(
    judge, toy_run, tmp_path, words, unwritten
):
    results = run_benchmark(
        "drawbench", runs={"toy": toy_run()}, data_dir=table(tmp_path / "prompts"), samples=4,
        out=tmp_path / "out", reporter=words,
    )  # fmt: skip
    (row,) = results.rows
    score = row.scores["prompts"]["pickscore"]["pickscore"]
    low, high = row.intervals["prompts"]["pickscore"]["pickscore"]
    assert low < score < high
    assert results.headline.measure == "pickscore"
    assert results.left_out["image-reward"] == "'t2i fetch image-reward' gets its weights"
    assert results.grid[0]["caption"] == "a red square, no. 0"


class RedCow(torch.nn.Module):
    """A detector that finds the same objects in every image, all of them red."""

    def forward(self, images):
        mask = torch.ones(1, 1, dtype=torch.bool)
        cow, dog = (
            Found("cow", 0.95, (0, 0, 10, 10), mask),
            Found("dog", 0.5, (50, 0, 60, 10), mask),
        )
        return [[cow, dog]] * len(images)

    def names(self, image, some, name):
        return ["red"] * len(some)


GENEVAL = [
    ("single_object", [{"class": "cow"}], True), ("single_object", [{"class": "cat"}], False),
    ("two_object", [{"class": "cow"}, {"class": "dog"}], True),
    ("counting", [{"class": "cow"}], True), ("counting", [{"class": "dog"}], False),
    ("colors", [{"class": "dog", "color": "red"}], True),
    ("colors", [{"class": "cow", "color": "blue"}], False),
    ("position", [{"class": "dog"}, {"class": "cow", "position": ["left of", 0]}], True),
    ("color_attr", [{"class": "cow", "color": "red"}, {"class": "dog", "color": "pink"}], False),
]  # fmt: skip
"""Prompts by tag and objects, and whether an image of a red cow left of a red dog shows them."""


def geneval_table(folder):
    folder.mkdir(exist_ok=True)
    rows = [
        {"tag": tag, "prompt": f"no. {number}", "include": [{"count": 1, **one} for one in objects]}
        for number in range(553)
        for tag, objects, _ in [GENEVAL[number % len(GENEVAL)]]
    ]
    file = folder / "evaluation_metadata.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_genevals_prompts_are_scored_by_its_checks_of_objects(
    monkeypatch, toy_run, tmp_path, words, unwritten
):
    file = geneval_table(tmp_path / "prompts")
    replaced(
        monkeypatch, "geneval",
        lambda config: ObjectChecks(config, read_prompts(file), RedCow(), RedCow()),
    )  # fmt: skip
    results = run_benchmark(
        "geneval-prompts", runs={"toy": toy_run()}, data_dir=file.parent, samples=len(GENEVAL),
        out=tmp_path / "out", reporter=words,
    )  # fmt: skip
    (row,) = results.rows
    scores, intervals = (found["prompts"]["geneval"] for found in (row.scores, row.intervals))
    assert scores == {
        "geneval": pytest.approx(350 / 6), "single_object": 50, "two_object": 100, "counting": 50,
        "colors": 50, "position": 100, "color_attr": 0,
    }  # fmt: skip
    assert intervals.keys() == scores.keys()
    assert results.headline.measure == "geneval"
    assert [column.title for column in results.bars] == list(TAGS)
    assert "mask2former" in results.protocol["measures"]["geneval"]["extractor"]["name"]
    assert results.left_out["pickscore"] == "'t2i fetch pickscore' gets its weights"


def test_without_genevals_networks_another_judge_scores_its_prompts(judge):
    benchmark, left_out = with_what_is_there(find_benchmark("geneval-prompts", None))
    assert left_out["geneval"] == "'t2i fetch geneval' gets its weights"
    assert benchmark.headline == ("pickscore", "pickscore")
    assert "CC BY-NC 4.0 for the detector" in registry().downloads["geneval"].licence


@pytest.mark.slow  # plots
def test_the_report_needs_no_real_images(judge, toy_run, tmp_path, words):
    results = run_benchmark(
        "drawbench", runs={"toy": toy_run()}, data_dir=table(tmp_path / "prompts"), samples=4,
        out=tmp_path / "out", reporter=words,
    )  # fmt: skip
    assert "PickScore" in results.report.read_text()


def test_a_model_tuned_on_a_judge_is_marked(judge):
    """The judges say by which names settings mean them."""
    scorer = Scorer(with_what_is_there(find_benchmark("drawbench", None))[0], "cpu")
    assert scorer.own_judges(["somebody/brightness", "else"]) == [
        ("pickscore", "somebody/brightness")
    ]


def test_a_model_cannot_be_trained_on_prompts(judge, tmp_path):
    request = BenchmarkRequest("drawbench", models=["toy"], data_dir=table(tmp_path / "prompts"))
    with pytest.raises(UserError, match="no images to train 'toy' on"):
        make_plan(request)
    with pytest.raises(UserError, match="name finished ones by --run"):
        make_plan(BenchmarkRequest("drawbench", data_dir=tmp_path / "prompts"))


def test_without_any_judge_the_error_names_the_commands(toy_run, tmp_path, words, unwritten):
    with pytest.raises(UserError, match=r"no measure can be computed.*'t2i fetch pickscore'"):
        run_benchmark(
            "drawbench", runs={"toy": toy_run()}, data_dir=table(tmp_path / "prompts"), samples=4,
            out=tmp_path / "out", reporter=words,
        )  # fmt: skip


def test_the_whole_table_must_be_there(judge, toy_run, tmp_path, words, unwritten):
    with pytest.raises(UserError, match="needs 200 examples of 'prompt-table'"):
        run_benchmark(
            "drawbench", runs={"toy": toy_run()}, data_dir=table(tmp_path / "prompts", 199),
            out=tmp_path / "out", reporter=words,
        )  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def translate_path(self, path):
        return super().translate_path(path.partition("?")[0])


@pytest.fixture
def mirror(tmp_path):
    """A loopback server that holds files by HOST/PATH."""
    root = tmp_path / "mirror"
    root.mkdir()
    handler = partial(Quiet, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield root, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def served(root, file, content):
    host, _, path = file.url.partition("?")[0].removeprefix("https://").partition("/")
    place = root / host / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


def test_drawbench_comes_from_its_sheet(mirror, tmp_path):
    root, url = mirror
    (file,) = registry().downloads["drawbench"].files
    served(root, file, (table(tmp_path / "made") / "DrawBench.csv").read_bytes())
    (arrived,), _ = fetch("drawbench", mirror=url)
    assert arrived.path.name == "DrawBench.csv"
    benchmark = find_benchmark("drawbench", None)
    choice = registry().datasets.choose(
        "prompt-table", {**benchmark.data, "dir": str(arrived.path.parent)}
    )
    data = registry().datasets.build(choice, "val")
    assert len(data) == 200
    assert data.captions(2) == ("a very very red square, no. 2",)


@pytest.mark.parametrize("name", ["parti-prompts", "geneval-prompts"])
def test_changed_prompts_are_refused(name, mirror):
    """Their checksums are those of the published files."""
    root, url = mirror
    (file,) = registry().downloads[name].files
    served(root, file, b"x" * file.size)
    assert file.checksum != f"sha256:{hashlib.sha256(b'x' * file.size).hexdigest()}"
    with pytest.raises(UserError, match="what came has the SHA256"):
        fetch(name, mirror=url)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("PartiPrompts.tsv", 'Prompt\tCategory\nbond\tAbstract\na "red" dog, 5\' tall\tAnimals\n'),
        (
            "evaluation_metadata.jsonl",
            "".join(
                json.dumps(
                    {"tag": "counting", "include": [{"class": "cow", "count": 2}], "prompt": p}
                )
                + "\n"
                for p in ("bond", 'a "red" dog, 5\' tall')
            ),
        ),
    ],
)
def test_published_layouts_are_read(file, content, tmp_path):
    (tmp_path / file).write_text(content)
    choice = registry().datasets.choose("prompt-table", {"file": file, "dir": str(tmp_path)})
    data = registry().datasets.build(choice, "val")
    assert [data.captions(i)[0] for i in range(2)] == ["bond", 'a "red" dog, 5\' tall']
    with pytest.raises(UserError, match="no images"):
        data[0]
