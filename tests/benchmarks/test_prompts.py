"""Benchmarks of prompts alone: fetched from a server, sampled and judged without real images."""

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch

from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.benchmarks.run.plan import find_benchmark, make_plan
from t2i.benchmarks.runner import run_benchmark
from t2i.benchmarks.score.available_measures import with_what_is_there
from t2i.benchmarks.score.scorer import Scorer
from t2i.core.errors import UserError
from t2i.core.fetch.downloads import fetch
from t2i.core.interfaces.scoring import PairedExtractor
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("squares")


class Brightness(PairedExtractor):
    """A judge that reads an image with its caption: brightness times the number of words."""

    name, weights_sha256, dim = "brightness", "1" * 64, 1
    networks = ("somebody/brightness",)

    def of_pairs(self, images, captions):
        words = torch.tensor([len(caption.split()) for caption in captions])
        return (images.float().mean((1, 2, 3)) * words)[:, None]


@pytest.fixture
def judge(monkeypatch):
    """PickScore's place is taken by a judge that needs no weights."""
    import sys

    module = SimpleNamespace(build=lambda config: Brightness())
    monkeypatch.setitem(sys.modules, "t2i_brightness", module)
    spec, origin = registry().features.entries["pickscore"]
    monkeypatch.setitem(
        registry().features.entries, "pickscore",
        (type(spec)(**{**spec.__dict__, "build": "t2i_brightness:build"}), origin),
    )  # fmt: skip


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
