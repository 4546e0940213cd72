"""`t2i bench pictures`: a benchmark on a folder of one's own images."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.benchmarks.run.chosen_benchmark import find_benchmark
from t2i.benchmarks.run.own_data import filled_in, with_data
from t2i.benchmarks.run.plan import make_plan
from t2i.benchmarks.runner import run_benchmark
from t2i.core.errors import UserError
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("squares", "unwritten")
COLOURS = ("red", "green", "blue")


def fill(folder, count, seed, side=12):
    folder.mkdir(parents=True)
    stream, lines = np.random.default_rng(seed), []
    for number in range(count):
        image = stream.integers(0, 60, (side, side, 3))
        image[..., number % 3] += 180
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{number:03}.png")
        lines.append({"file_name": f"{number:03}.png", "text": f"a {COLOURS[number % 3]} square"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "mine" / "train", 14, 1)
    fill(tmp_path / "mine" / "val", 6, 2)
    return tmp_path / "mine"


def bench(folder, out, words, **more):
    return run_benchmark("pictures", data_dir=folder, out=out, reporter=words, image_size=8, **more)


def test_models_are_trained_and_scored_on_ones_own_images(folder, tmp_path, engine, words):
    results = bench(folder, tmp_path / "out", words, models=["toy"])
    ((config, _),) = engine.trained
    assert (config.data.name, config.settings.image_size) == ("imagefolder", 8)
    assert {p["name"]: p["count"] for p in results.protocol["prompts"]} == {"val": 6, "train": 14}
    real, toy, _ = results.rows
    assert results.headline.measure == "kid-pixels"
    assert results.left_out["fid"] == "'t2i fetch inception' gets its weights"
    assert toy.scores["val"]["fd-pixels"]["fid"] > real.scores["val"]["fd-pixels"]["fid"]
    assert results.protocol["training"]["count"] == 14
    # The other real images are the training images, which are copies of themselves.
    assert real.scores["val"]["memorised"] == {"memorised": 100, "train_distance": 0}
    assert "these are training images, which count as memorised" in real.warnings[0]
    assert toy.scores["val"]["memorised"]["memorised"] == 0
    assert not toy.warnings


def test_the_nearest_training_images_are_kept_for_the_report(folder, tmp_path, engine, words):
    bench(folder, tmp_path / "out", words, models=["toy"])
    shown = sorted((tmp_path / "out" / "pictures" / "nearest" / "toy").glob("*.png"))
    assert len(shown) == len(sorted((tmp_path / "out" / "pictures" / "toy").glob("*.png"))) == 32
    training = [
        np.asarray(Image.open(path).resize((8, 8), Image.LANCZOS))
        for path in (folder / "train").glob("*.png")
    ]
    image = np.asarray(Image.open(shown[0]))
    assert any(np.array_equal(image, one) for one in training)


def test_the_protocol_depends_on_the_images_and_not_on_where_they_are(
    folder, tmp_path, engine, words
):
    first = bench(folder, tmp_path / "out", words, models=["toy"])
    shutil.copytree(folder, tmp_path / "moved")
    again = bench(tmp_path / "moved", tmp_path / "out2", words, models=["toy"])
    assert again.protocol_hash == first.protocol_hash
    settings = {"caption": "unused: every image has one"}
    named = bench(folder, tmp_path / "out3", words, models=["toy"], data_settings=settings)
    assert named.protocol_hash == first.protocol_hash
    table = tmp_path / "moved" / "val" / "metadata.jsonl"
    table.write_text(table.read_text().replace("a blue", "one blue"))
    other = bench(tmp_path / "moved", tmp_path / "out4", words, models=["toy"])
    assert other.protocol_hash != first.protocol_hash


def test_a_run_of_other_data_is_named(folder, tmp_path, words, trained_run):
    run = tmp_path / "run"
    trained_run(run, resolve_config("toy", overrides={"image_size": 8}))
    results = bench(folder, tmp_path / "out", words, runs={"mine": run})
    text = "it was trained on 'toydata', not on 'imagefolder'"
    assert f"warning: mine: {text}" in words.lines
    assert text in results.rows[1].warnings


def test_a_run_of_another_folder_is_named(folder, tmp_path, words, trained_run):
    def run(name, fingerprint):
        data = {"name": "imagefolder", "dir": str(folder)}
        made = trained_run(
            tmp_path / name, resolve_config("toy", overrides={"image_size": 8, "data": data})
        )
        document = json.loads(made.config_file.read_text())
        made.config_file.write_text(json.dumps({**document, "data_fingerprint": fingerprint}))
        return made.path

    ours = find_fingerprint(folder)
    runs = {"same": run("a", ours), "other": run("b", "1234"), "unknown": run("c", None)}
    results = bench(folder, tmp_path / "out", words, runs=runs)
    told = {row.name: row.warnings for row in results.rows}
    assert any("other images of the kind 'imagefolder'" in text for text in told["other"])
    assert not any("it was trained on" in text for text in told["same"] + told["unknown"])


def find_fingerprint(folder):
    from t2i.core.registry.tables import registry
    from t2i.core.runs.configure import open_dataset

    settings = {"dir": str(folder), "image_size": 8}
    return open_dataset(
        registry().datasets.choose("imagefolder", settings, "test"), "train"
    ).fingerprint()


def filled(folder, **more):
    request = BenchmarkRequest("pictures", data_dir=folder, **more)
    return filled_in(with_data(find_benchmark("pictures", None), request), request, folder)


def test_the_image_size_is_the_largest_that_images_have(tmp_path):
    for side, want in ((20, 32), (40, 32), (64, 64), (300, 64)):
        fill(tmp_path / str(side) / "train", 3, 1, side)
        fill(tmp_path / str(side) / "val", 3, 2, side)
        assert filled(tmp_path / str(side)).image_size == want
    assert filled(tmp_path / "20", image_size=16).image_size == 16


def test_captions_of_training_images_are_scored_where_there_are_few_others(tmp_path):
    fill(tmp_path / "train", 70, 1)
    fill(tmp_path / "val", 100, 2)
    assert [(p.name, p.count) for p in filled(tmp_path).prompts] == [("val", 100)]
    for number in range(3):
        (tmp_path / "val" / f"{number:03}.png").unlink()
    lines = (tmp_path / "val" / "metadata.jsonl").read_text().split("\n")[3:]
    (tmp_path / "val" / "metadata.jsonl").write_text("\n".join(lines))
    assert [(p.name, p.count) for p in filled(tmp_path).prompts] == [("val", 97), ("train", 64)]


def test_fewer_captions_can_be_named(folder):
    request = BenchmarkRequest("pictures", data_dir=folder, samples=3, models=["toy"], image_size=8)
    sets = make_plan(request).benchmark.prompts
    assert [(p.name, p.count) for p in sets] == [("val", 3), ("train", 3)]


def test_another_data_set_can_be_named(tmp_path):
    request = BenchmarkRequest("pictures", data="squares", models=["toy"], image_size=8, samples=4)
    plan = make_plan(request)
    assert (plan.benchmark.dataset, plan.data["name"]) == ("squares", "squares")


@pytest.mark.parametrize(
    ("name", "more", "line"),
    [
        ("imagefolder", {}, "'t2i bench pictures --data imagefolder --data-dir DIR'"),
        ("squares", {"data": "imagefolder"}, "fixes its data and image size: leave out --data"),
        ("squares", {"image_size": 16}, "leave out --image-size"),
        ("shapes", {"data_dir": "pics"}, "reads no folder; leave out --data-dir"),
        ("pictures", {}, "say where it is with --data-dir"),
        ("pictures", {"data": "imagefoldr"}, "did you mean 'imagefolder'"),
    ],
)
def test_mistakes_are_named(name, more, line):
    with pytest.raises(UserError, match=line):
        make_plan(BenchmarkRequest(name, models=["toy"], **more))


def test_the_folder_decides_the_data_set(tmp_path, capsys):
    (tmp_path / "annotations").mkdir()
    for split, count in (("train", 3), ("val", 2)):
        fill(tmp_path / f"{split}2017", count, 1)
        (tmp_path / f"{split}2017" / "metadata.jsonl").unlink()
        document = {
            "images": [{"id": n, "file_name": f"{n:03}.png"} for n in range(count)],
            "annotations": [{"image_id": n, "caption": "a square"} for n in range(count)],
        }
        path = tmp_path / "annotations" / f"captions_{split}2017.json"
        path.write_text(json.dumps(document))
    request = BenchmarkRequest("pictures", data_dir=tmp_path, models=["toy"], image_size=8)
    plan = make_plan(request)
    assert (plan.benchmark.dataset, plan.data["name"]) == ("coco", "coco")
    assert "data set: coco, for COCO's captions" in capsys.readouterr().err


def test_other_images_into_the_same_folder_are_refused_before_anything_is_written(
    folder, tmp_path, engine, words
):
    bench(folder, tmp_path / "out", words, models=["toy"])
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    fill(tmp_path / "theirs" / "train", 9, 3)
    fill(tmp_path / "theirs" / "val", 5, 4)
    with pytest.raises(
        UserError, match=r"\(data\.dir: \S+mine, now \S+theirs\); name another --out"
    ):
        bench(tmp_path / "theirs", tmp_path / "out", words, models=["toy"])
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert after == before


def test_more_images_are_put_aside_as_the_error_says(tmp_path):
    folder = tmp_path / "three"
    fill(folder, 3, 1)
    with pytest.raises(UserError, match="1 image in split 'val'") as caught:
        filled(folder)
    share = float(str(caught.value).rpartition("--set data.val_share=")[2])
    request = BenchmarkRequest(
        "pictures", data_dir=folder, data_settings={"val_share": share}, models=["toy"]
    )
    assert make_plan(request).benchmark.headline_set.count >= 2


def test_one_image_is_too_few(tmp_path):
    fill(tmp_path / "train", 4, 1)
    fill(tmp_path / "val", 1, 2)
    with pytest.raises(UserError, match=r"1 image in split 'val', where scores need 2") as caught:
        filled(tmp_path)
    assert "val_share" not in str(caught.value)  # the folders decide the splits
