"""Models: saved and loaded to the same pictures, drawn the same in any batch, damaged ones refused."""

import numpy as np
import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.files import load_tensors, save_tensors, seal
from t2i.core.model import build, load, load_state
from t2i.core.runs import resolve

pytestmark = pytest.mark.usefixtures("toy")
PROMPTS = ["a red picture", "", "a red picture", "nothing known"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build(resolve("toy", sets=["encoder.words=[a, red, picture]"]))


def pictures(model, **arguments):
    return [np.asarray(image) for image in model.sample(PROMPTS, n=2, seed=5, **arguments)]


def test_a_saved_model_draws_the_same_pictures(model, tmp_path):
    model.save(tmp_path / "run" / "model")
    for path in (tmp_path / "run", tmp_path / "run" / "model"):
        for ours, theirs in zip(pictures(model), pictures(load(path, "cpu")), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_do_not_matter_to_one_level(model, batch_size):
    whole = pictures(model, batch_size=100)
    for ours, theirs in zip(pictures(model, batch_size=batch_size), whole, strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_prompt_and_sample_index_key_the_noise(model):
    images = pictures(model)
    assert not np.array_equal(images[0], images[1])  # two samples of one prompt
    assert not np.array_equal(images[0], images[4])  # the same prompt at another place
    again = model.sample(PROMPTS[:1], n=1, seed=5)[0]
    np.testing.assert_array_equal(np.asarray(again), images[0])


def test_a_misfit_sampler_is_refused_with_those_that_fit(model):
    with pytest.raises(
        UserError, match=r"'ddim' draws from diffusion models, but 'toy' is one-shot: use --sampler direct"
    ):
        model.sample(["x"], sampler="ddim")


def test_a_damaged_or_absent_model_is_refused(model, tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(UserError, match="no such"):
        load(folder)
    model.save(folder)
    weights = folder / "generator.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"generator\.safetensors is damaged"):
        load(folder)


def test_weights_that_do_not_fit_name_the_first_three(model, tmp_path):
    folder = tmp_path / "model"
    model.save(folder)
    state = load_tensors(folder / "generator.safetensors", "x")
    state["strange"] = state.pop("hidden.weight")
    state["out.bias"] = state["out.bias"][:3]
    save_tensors(folder / "generator.safetensors", state)
    seal(folder)
    with pytest.raises(
        UserError,
        match=r"hidden\.weight is missing; strange is surplus; out\.bias is \(3,\), not \(192,\)$",
    ):
        load(folder)


def test_shared_tensors_are_saved_once_and_come_back_shared(tmp_path):
    from t2i.core.model import owned_tensors

    tied = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    tied["b"].weight = tied["a"].weight
    save_tensors(tmp_path / "t.safetensors", owned_tensors(tied))
    with torch.no_grad():
        tied["a"].weight.zero_()
    load_state(tied, load_tensors(tmp_path / "t.safetensors", "t"), "t")
    assert tied["b"].weight.abs().sum() > 0
