"""Two commands at once, and folders that somebody sent, as real processes."""

import json
import shutil

import pytest

from t2i.core.runs.folder import runs_in

TRAIN = ("train", "--model", "dfgan", "--steps", "2")


@pytest.fixture
def settings(small):
    """Options of a very small GAN."""
    return [word for text in small("dfgan") for word in ("--set", text)]


@pytest.mark.slow
def test_four_trainings_without_out_get_a_run_each(tmp_path, nursery, settings):
    processes = [
        nursery.start(*TRAIN, *settings, "--seed", seed, cwd=tmp_path) for seed in range(4)
    ]
    assert [process.wait().code for process in processes] == [0] * 4
    seeds = [run.config().settings.seed for run in runs_in(tmp_path / "runs")]
    assert sorted(seeds) == [0, 1, 2, 3]


@pytest.mark.slow
def test_of_two_benchmarks_in_one_folder_one_refuses(tmp_path, nursery, reference):
    for name in "ab":
        shutil.copytree(reference("dfgan"), tmp_path / name)
    both = [
        nursery.start("bench", "shapes", "--run", f"{run}={run}", "--samples", "4", "--out", "out",
                      cwd=tmp_path)
        for run in "ab"
    ]  # fmt: skip
    codes = [process.wait().code for process in both]
    assert sorted(codes) == [0, 2]
    refused, made = both[codes.index(2)], "ab"[codes.index(0)]
    assert "another benchmark works there: wait for it" in refused.err
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [row["name"] for row in rows if row["kind"] == "model"] == [made]


@pytest.mark.slow
@pytest.mark.parametrize("inside", ["partial", "pictures", "scores", ".lock"])
def test_a_benchmark_leaves_what_a_link_in_its_folder_leads_to(
    tmp_path, nursery, reference, inside
):
    shutil.copytree(reference("dfgan"), tmp_path / "run")
    mine = tmp_path / "mine"
    (mine / "m").mkdir(parents=True)
    (mine / "m" / "f").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / inside).symlink_to(mine / "m" / "f" if inside == ".lock" else mine)
    done = nursery(
        "bench", "shapes", "--run", "m=run", "--samples", "4", "--out", "out", cwd=tmp_path
    )
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.err
    assert (mine / "m" / "f").read_text() == "precious"
    assert [path.name for path in mine.rglob("*")] == ["m", "f"]


@pytest.mark.slow
def test_samplers_leave_what_a_link_in_the_run_leads_to(tmp_path, nursery, reference):
    shutil.copytree(reference("ddpm"), tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "run" / "bench-samplers").symlink_to(tmp_path / "mine")
    done = nursery(
        "bench", "samplers", "shapes", "--run", "run", "--steps", "2", "--samples", "4",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 2
    assert "bench-samplers is a link: remove it, or name a folder with --out" in done.err
    assert not any((tmp_path / "mine").iterdir())


@pytest.mark.slow
def test_samples_replace_no_file_elsewhere(tmp_path, nursery, reference):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    for name in (".lock", "samples.jsonl", "grid.png", ".grid.png.tmp", ".0000-000.png.tmp"):
        out = tmp_path / name.strip(".")
        out.mkdir()
        (out / name).symlink_to(mine)
        nursery("sample", "--run", reference("dfgan"), "-p", "x", "--out", out)
        assert mine.read_text() == "precious"
