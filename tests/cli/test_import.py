"""t2i import -> t2i sample, as a user does it, and what can be wrong about it."""

import json
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from t2i.core.models.building import build
from t2i.core.runs.configure import resolve_config


@pytest.fixture
def weights(toy, tmp_path):
    """A file of weights of the toy's preset `paper`; also in the folder where processes run."""
    torch.manual_seed(0)
    state = build(resolve_config("toy", preset="paper", data_needed=False)).generator.state_dict()
    (tmp_path / "work").mkdir(exist_ok=True)
    for folder in (tmp_path, tmp_path / "work"):
        save_file(state, folder / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.mark.slow
def test_imported_in_one_process_and_drawn_from_in_another(toy_process, weights):
    process = toy_process("import", "--model", "toy", "w.safetensors", "--json")
    assert process.returncode == 0, process.stderr
    assert process.stderr == "using preset paper (others: tiny)\n"
    document = json.loads(process.stdout)
    assert (document["run"], document["model"], document["preset"]) == (
        "runs/toy-paper-imported",
        "toy",
        "paper",
    )
    assert document["summary"]["imported"][0]["file"] == "w.safetensors"
    sampled = toy_process(*shlex.split(document["sample"])[1:], "--out", "p")
    assert sampled.returncode == 0, sampled.stderr
    assert Image.open(toy_process.work / "p" / "0000-000.png").size == (8, 8)
    newest = toy_process("sample", "--model", "toy", "-p", "a red bird", "--out", "q")
    assert newest.returncode == 0, newest.stderr
    assert (toy_process.work / "p" / "0000-000.png").read_bytes() == (
        toy_process.work / "q" / "0000-000.png"
    ).read_bytes()


def test_the_words_for_a_person(here, weights, tmp_path):
    code, out, err = here(
        "import", "--model", "toy", "--preset", "paper", "w.safetensors", "--out", "a run"
    )
    assert (code, err) == (0, "")
    assert out == "run: a run\ndraw: t2i sample --run 'a run' -p 'a red bird'\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["w.safetensors"], "say whose weights these are, with --model M"),
        (
            ["--model", "toy"],
            "name the files of weights: 't2i import --model toy FILE... --out RUN'",
        ),
        (["--model", "tyo", "w.safetensors"], "no model is named 'tyo'; did you mean 'toy'?"),
        (
            ["--model", "ddim", "w.safetensors"],
            "model 'ddim' cannot import weights; those that can: ",
        ),
        (
            ["--model", "toy", "--preset", "pepper", "w.safetensors"],
            "no preset 'pepper'; did you mean 'paper'?",
        ),
        (
            ["--model", "toy", "none"],
            "none: No such file or directory; name the files of weights themselves",
        ),
        (["--model", "toy", "hostile.pth"], "weights: hostile.pth is no sound safetensors file"),
        (
            ["--model", "toy", "--preset", "tiny", "w.safetensors"],
            "does not fit the network: hidden.weight is (16, 9)",
        ),
        (["--model", "toy", "w.safetensors", "--out", "w.safetensors"], "is there already"),
    ],
)
def test_mistakes_get_one_line(refused, weights, tmp_path, arguments, line):
    (tmp_path / "hostile.pth").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    assert line in refused("import", *arguments)
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "canary").exists()


# --- t2i sample --features ------------------------------------------------------------------------


@pytest.fixture
def imported(here, weights):
    assert here("import", "--model", "toy", "w.safetensors", "--out", "run")[0] == 0
    return "run"


def test_features_are_drawn_for_row_by_row(here, imported, tmp_path):
    """The same images whatever file holds the vectors, and different ones for different rows."""
    vectors = np.linspace(-2, 2, 15).reshape(3, 5)
    np.save(tmp_path / "f.npy", vectors)
    save_file({"any name": torch.from_numpy(vectors).float()}, tmp_path / "f.safetensors")
    images = {}
    for name in ("f.npy", "f.safetensors"):
        code, out, err = here(
            "sample",
            "--run",
            imported,
            "--features",
            name,
            "-n",
            "2",
            "--out",
            name[2:],
            "--json",
            "--batch-size",
            "4",
        )
        assert code == 0, err
        assert "sampling 6 images from run" in err
        records = json.loads(out)["samples"]
        assert [record["prompt"] for record in records] == [
            f"{name}[{row}]" for row in (0, 0, 1, 1, 2, 2)
        ]
        images[name] = [
            np.asarray(Image.open(tmp_path / name[2:] / record["file"])) for record in records
        ]
    np.testing.assert_array_equal(images["f.npy"], images["f.safetensors"])
    model = build_of(tmp_path / imported)
    noise, text = noise_of(model, 3), torch.from_numpy(vectors[1:2]).float()
    expected = model.generator(noise, SentenceOnly(text))
    got = images["f.npy"][2].astype(float) / 127.5 - 1
    np.testing.assert_allclose(got, expected[0].permute(1, 2, 0).detach().numpy(), atol=1 / 127)


class SentenceOnly:
    def __init__(self, sentence):
        self.sentence = sentence


def build_of(path):
    from t2i import load

    return load(path, "cpu")


def noise_of(model, rows):
    from t2i.core.interfaces.noise import PromptNoise

    return PromptNoise(0, ((1, 0),), "cpu").start("z", model.generator.noise_shape)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            np.zeros((2, 4)),
            "text features of width 4, but model 'toy' takes 5 for sentences and 5 for words",
        ),
        (np.zeros(5), "(5,) of float64, where finite numbers (N, D) are expected"),
        (np.zeros((0, 5)), "(0, 5) of float64, where"),
        (np.full((2, 5), np.nan), "where finite numbers"),
        (np.zeros((2, 5), complex), "of complex128, where"),
        (np.array([["a"]]), "no .npy file of numbers"),
        (b"", "no .npy file of numbers"),
        (
            b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': "
            b"(99999999999, 5), }  \n",
            "no .npy",
        ),
        (np.array([[print, 1]], dtype=object), "no .npy file of numbers"),
    ],
    ids=str,
)
def test_features_that_are_none_get_one_line(refused, imported, tmp_path, content, line):
    if isinstance(content, bytes):
        (tmp_path / "f.npy").write_bytes(content)
    else:
        np.save(tmp_path / "f.npy", content, allow_pickle=True)
    assert line in refused("sample", "--run", imported, "--features", "f.npy", "--out", "o")
    assert not (tmp_path / "o").exists()


def test_features_files_that_cannot_be_read_name_themselves(refused, imported, tmp_path):
    sample = ("sample", "--run", imported)
    assert "features none.npy: No such file" in refused(*sample, "--features", "none.npy")
    save_file({"a": torch.ones(1, 5), "b": torch.ones(1, 5)}, tmp_path / "two.safetensors")
    assert "it holds 2 tensors; save the sentence vectors alone" in refused(
        *sample, "--features", "two.safetensors"
    )
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    assert "bad.safetensors is no sound safetensors file" in refused(
        *sample, "--features", "bad.safetensors"
    )
    assert "leave out -p, --prompts and --interpolate" in refused(
        *sample, "--features", "two.safetensors", "-p", "x"
    )
    assert "-p TEXT (repeatable), --prompts FILE or --features FILE" in refused(*sample)
