"""A folder OUT, runs and results that somebody sent: one line, before anything is sampled."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from t2i.benchmarks.report.diff import SHOWN, compare
from t2i.benchmarks.results import Results
from t2i.benchmarks.run.arithmetic import counted
from t2i.benchmarks.run.caption_sets import ImageStream
from t2i.benchmarks.run.partial import Parts
from t2i.benchmarks.run.row_names import check_names
from t2i.benchmarks.run.trained_run import _remove
from t2i.benchmarks.runner import run_benchmark
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import ImageBatch
from t2i.core.io.locks import folder_lock, take_folder
from t2i.core.io.processes import Group
from t2i.core.io.sealed import seal
from t2i.core.io.tensors import load_tensors, save_tensors
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run

pytestmark = pytest.mark.usefixtures("squares", "unwritten")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder for a benchmark that is run once, for its run."""
    return tmp_path_factory.mktemp("sent") / "first"


@pytest.fixture
def bench(first, tmp_path, engine, words):
    """Runs the benchmark into tmp_path/out, with the run `old` given as the row m."""
    if not first.exists():
        run_benchmark("squares", out=first, reporter=words)
    shutil.copytree(first / "runs" / "toy", tmp_path / "old")

    def go(**more):
        arguments = {"runs": {"m": tmp_path / "old"}, "out": tmp_path / "out", **more}
        return run_benchmark("squares", reporter=words, **arguments)

    return go


ROWS = {
    "a list": [],
    "null": None,
    "an unknown key": {"evil": 1},
    "another row": {"name": "toy"},
    "another kind": {"kind": "real"},
    "scores a text": {"scores": {"val": {"fid": {"fid": "x"}}}},
    "scores a list": {"scores": [1]},
    "scores huge": {"scores": {"val": {"fid": {"fid": 1e300}}}},
    "scores of another measure": {"scores": {"val": {"evil": {"fid": 1}}}},
    "scores without the score": {"scores": {"variety": {"diversity": {"evil": 1}}}},
    "three bounds": {"intervals": {"a": {"b": {"c": [1, 2, 3]}}}},
    "training a list": {"training": [1]},
    "training ran backwards": {"training": {"seconds": -1}},
    "training of a text": {"training": {"config": {"data": 3}}},
    "stages of numbers": {"training": {"stages": [1]}},
    "sampling null": {"sampling": None},
    "a curve of numbers": {"curve": [1]},
    "a curve of texts": {"curve": [{"seconds": "x"}]},
    "a model of a list": {"model": [1]},
    "warnings of numbers": {"warnings": [1]},
}


@pytest.mark.parametrize("change", ROWS.values(), ids=ROWS)
def test_a_kept_row_is_checked_first(tmp_path, bench, change):
    bench()
    file = tmp_path / "out" / "scores" / "m.json"
    document = json.loads(file.read_text())
    row = {**document["row"], **change} if isinstance(change, dict) else change
    file.write_text(json.dumps({**document, "row": row}))
    (tmp_path / "out" / "scores" / "real.json").unlink()  # would be made again before it
    with pytest.raises(UserError, match=r"scores/m\.json: .*; remove the file, and the row is"):
        bench()
    assert not (tmp_path / "out" / "scores" / "real.json").exists()
    file.unlink()
    bench()


@pytest.mark.parametrize("text", [b"", b"[" * 99_999, b'{"key": NaN}', b'{"a": "\xe9"}', b"[1]"])
def test_a_kept_row_that_is_no_json_is_one_line(tmp_path, bench, text):
    bench()
    (tmp_path / "out" / "scores" / "m.json").write_bytes(text)
    with pytest.raises(UserError, match=r"scores: .*m\.json"):
        bench()


SUMMARIES = {
    "infinite": '{"seconds": Infinity}',
    "a list": "[1]",
    "steps a text": '{"steps": "x"}',
    "stages a number": '{"stages": 1}',
    "a huge number": '{"peak_memory_bytes": 1' + "0" * 400 + "}",
    "deep": '{"a": ' * 500 + "1" + "}" * 500,
    "Latin-1": b'{"device": "\xe9"}',
}


@pytest.mark.parametrize("text", SUMMARIES.values(), ids=SUMMARIES)
def test_a_runs_summary_is_checked_first(tmp_path, bench, text):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "old" / "summary.json").write_bytes(data)
    with pytest.raises(UserError, match=r"summary\.json.*restore the file"):
        bench()
    assert not (tmp_path / "out" / "scores").exists()


@pytest.mark.parametrize("text", [b"[1]\n", b'{"seconds": NaN}\n', b'{"stage": "\xe9"}\n'])
def test_a_runs_log_is_checked_first(tmp_path, bench, text):
    (tmp_path / "old" / "metrics.jsonl").write_bytes(text)
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1: .*or remove it"):
        bench()
    assert not (tmp_path / "out" / "scores").exists()


@pytest.mark.parametrize(
    "text", ["[1]", "{", "[" * 99_999, '{"KEY": 1}', '{"KEY": {"operations": {"only": NaN}}}']
)
def test_operations_are_counted_anew(tmp_path, text):
    config, file, said = resolve_config("toy", data_needed=False), tmp_path / "operations.json", []
    whole = counted("m", config, file, said.append).document({"only": 3})
    file.write_text(text.replace("KEY", next(iter(json.loads(file.read_text())))))
    again = counted("m", config, file, said.append).document({"only": 3})
    assert whole["stages"] == again["stages"]
    assert any("operations.json" in line for line in said)
    assert json.loads(file.read_text()).keys()


def test_stray_images_are_not_shown_and_damaged_ones_made_again(tmp_path, bench, words):
    bench()
    images = tmp_path / "out" / "pictures" / "m"
    (images / "00-a.png").touch()
    (images / "notes.txt").touch()
    bench()
    assert (images / "00-a.png").exists()
    for damage in ("empty", "cut", "another size", "one more"):
        file = images / ("00-2.png" if damage == "one more" else "00-0.png")
        whole = (images / "00-0.png").read_bytes()
        file.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2]}.get(damage, whole))
        if damage == "another size":
            Image.new("RGB", (9, 9)).save(file)
        words.lines.clear()
        bench()
        assert any("images of its grid are missing or damaged" in line for line in words.lines)
        assert (images / "00-0.png").read_bytes() == whole
        assert not (images / "00-2.png").exists()


@pytest.mark.parametrize(
    "labels",
    [["real"], ["Real"], ["wrong"], ["nearest"], ["comparison"], ["a", "a"], ["a", "A"]],
)
def test_names_of_rows_are_reserved_and_unique(labels):
    with pytest.raises(UserError, match=r"^row '.*; give the model as a run under"):
        check_names(labels)


def test_a_given_run_cannot_have_the_name_of_a_seed(tmp_path, bench):
    with pytest.raises(UserError, match="row 'toy-seed1': two rows have this name"):
        bench(models=["toy"], seeds=2, runs={"toy-seed1": tmp_path / "old"})


def test_results_with_two_rows_of_a_name_are_refused(tmp_path, bench):
    bench()
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    document["rows"][0]["name"] = "m"
    (tmp_path / "r.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="2 rows are named 'm'"):
        Results.load(tmp_path / "r.json")


def test_a_diff_of_many_fields_prints_some(tmp_path, bench, capsys):
    bench()
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    document["protocol"] |= {f"k{n}": "x" * 5000 for n in range(SHOWN + 9)}
    (tmp_path / "r.json").write_text(json.dumps(document))
    compare(tmp_path / "out", tmp_path / "r.json").show()
    printed = capsys.readouterr().out
    assert "9 more differences, in --json" in printed
    assert len(printed) < 3_000_000


def test_a_run_that_trains_is_not_removed(tmp_path):
    lock = folder_lock(tmp_path / "run")
    take_folder(lock, "taken")
    with pytest.raises(UserError, match="is being trained by another process: wait for it"):
        _remove(Run(tmp_path / "run"))
    lock.release()
    _remove(Run(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_part_that_is_none_is_made_again(tmp_path):
    source = ImageStream(
        6,
        lambda part: iter(
            [ImageBatch(np.zeros((len(part), 1, 1, 3), np.uint8), ("c",) * len(part), part)]
        ),
    )
    made = []

    def fill():
        parts = Parts(tmp_path / "parts", {"a": 1}, Group())
        parts.fill("0", source, lambda images: made.append(1) or images, False, lambda *_: None)
        return [group for images in parts.read("0", source) for group in images.groups]

    assert fill() == fill() == list(range(6))
    assert len(made) == 1
    place = tmp_path / "parts" / "0" / "00000"
    whole = load_tensors(place / "features.safetensors", "it")
    nan = torch.tensor(float("nan"), dtype=torch.float64)
    for change in (
        {"seconds": nan}, {"seconds": torch.zeros(3)}, {"groups": torch.zeros(6)},
        {"groups": torch.zeros(9, dtype=torch.int64)}, {"features:a": torch.full((6, 2), nan)},
        {"features:a": torch.zeros(5, 2)},
    ):  # fmt: skip
        save_tensors(place / "features.safetensors", {**whole, **change})
        seal(place)
        made.clear()
        assert fill() == list(range(6))
        assert made == [1]
