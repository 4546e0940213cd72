"""Models: saved and loaded to the same images, drawn the same in any batch, damaged ones
refused."""

import base64
import io
import re
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise, text_key, text_keys
from t2i.core.interfaces.sampler import Sampler
from t2i.core.io.images import to_bytes
from t2i.core.io.sealed import seal
from t2i.core.io.tensors import load_tensors, save_tensors
from t2i.core.models.building import build
from t2i.core.models.interpolation import interpolate
from t2i.core.models.loading import load
from t2i.core.models.notebook import Images, count_in_words
from t2i.core.models.weights import load_state
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("toy")
PROMPTS = ["a red image", "", "a red image", "nothing known"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build(resolve_config("toy", sets=["encoder.words=[a, red, image]"]))


def make_images(model, **arguments):
    return [np.asarray(image) for image in model.sample(PROMPTS, n=2, seed=5, **arguments)]


def test_a_saved_model_draws_the_same_images(model, tmp_path):
    model.save(tmp_path / "run" / "model")
    for path in (tmp_path / "run", tmp_path / "run" / "model"):
        for ours, theirs in zip(make_images(model), make_images(load(path, "cpu")), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_do_not_matter_to_one_level(model, batch_size):
    whole = make_images(model, batch_size=100)
    for ours, theirs in zip(make_images(model, batch_size=batch_size), whole, strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def near(a, b):
    """The same but for rounding: a batch of another size may change a level."""
    assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1


def test_text_and_sample_number_key_the_noise(model):
    images = make_images(model)
    assert not np.array_equal(images[0], images[1])  # two samples of one prompt
    near(model.sample(PROMPTS[:1], n=1, seed=5)[0], images[0])
    # Wherever a prompt stands, its images are the same.
    turned = model.sample(["nothing known", "else", "a red image"], n=2, seed=5)
    near(turned[0], images[6])
    near(turned[4], images[0])
    # Where it stands again, its numbers go on.
    more = model.sample(PROMPTS[:1], n=4, seed=5)
    for ours, theirs in zip((*images[:2], *images[4:6]), more, strict=True):
        near(ours, theirs)


def test_keys_by_place_and_features_without_text_depend_on_the_row(model):
    def drawn(prompts, **how):
        return [s.image for batch in model.stream(prompts, seed=5, **how) for s in batch]

    texts = ["a red image"] * 2
    by_place = drawn(texts, keys=[(0, 0), (1, 0)])
    noise = PromptNoise(5, ((0, 0), (1, 0)))
    z = noise.normal("z", 0, model.generator.noise_shape)
    with torch.no_grad():
        images = model.generator(z, model.text_encoder.encode(texts))
    for ours, theirs in zip(by_place, to_bytes(images), strict=True):
        near(ours, theirs)
    plain = replace(model.text_encoder.encode(texts), captions=())
    for ours, theirs in zip(drawn(plain), by_place, strict=True):
        near(ours, theirs)
    told = drawn(model.text_encoder.encode(texts))  # features that know their captions
    for ours, theirs in zip(told, drawn(texts), strict=True):
        near(ours, theirs)
    (last,) = drawn(texts, n=3, only=[(1, 2)])
    near(last, drawn(texts, n=3)[5])


def test_two_models_get_the_same_noise_for_a_prompt(model):
    keys = text_keys(["b", "a", "b"], 2)
    assert [number for own in keys for _, number in own] == [0, 1, 0, 1, 2, 3]
    assert keys[0][0] == text_key("b", 0)
    assert text_key("1", 0)[0] != text_key("one", 0)[0]
    by_index = PromptNoise(0, ((1, 0),)).normal("z", 0, (4,))
    assert not torch.equal(PromptNoise(0, (text_key("1", 0),)).normal("z", 0, (4,)), by_index)
    assert text_key("\udc80", 0) != text_key("", 0)  # half a character of a bad file name


def test_what_a_gan_cannot_do_is_said_in_a_line(model):
    white = np.full((8, 8, 3), 255, np.uint8)
    for wanted, message in (
        ({"size": (8, 16)}, r"model 'toy' samples images of 8 x 8 pixels only: leave out --width"),
        ({"negative": "blurry"}, "sampler 'direct' has no classifier-free guidance"),
        ({"image": white}, "sampler 'direct' starts from noise, not from an image"),
    ):
        with pytest.raises(UserError, match=message):
            model.sample("a red image", **wanted)
    assert len(model.sample("a red image", size=(8, 8), negative=None)) == 1


def test_what_is_not_read_is_warned_of_once(model):
    with pytest.warns(UserWarning, match="an empty caption"):
        model.sample(["a red image", ""])


def test_a_str_is_one_prompt(model):
    (image,) = model.sample("a red image", seed=5)
    (same,) = model.sample(["a red image"], seed=5)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(same))
    assert len(next(iter(model.stream("a red image", n=3)))) == 3
    assert model.request("a red image", PromptNoise(0, ((0, 0),))).text.captions == ("a red image",)


def test_a_loaded_model_is_ready_for_use(model, tmp_path):
    model.save(tmp_path / "model")
    model.generator.train()
    loaded = load(tmp_path / "model", "cpu")
    for network in (loaded.generator, loaded.text_encoder):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
    text = loaded.text_encoder(["a red image"])
    assert torch.equal(text.words, loaded.text_encoder.encode(["a red image"]).words)


def test_a_model_and_its_images_show_themselves(model):
    count = sum(
        p.numel() for p in (*model.generator.parameters(), *model.text_encoder.parameters())
    )
    assert model.parameter_count == count
    size = model.generator.image_size
    assert repr(model) == f"Model(toy tiny, {size} px, {count_in_words(count)} parameters, direct)"
    assert "<td>toy, preset tiny</td>" in model._repr_html_()
    images = model.sample(["a <red> image", "b"], n=2)
    page = images._repr_html_()
    data = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in data]
    np.testing.assert_array_equal(np.stack(shown), np.stack([np.asarray(one) for one in images]))
    assert page.count("a &lt;red&gt; image</figcaption>") == 2
    assert "and 36 more" in Images(list(images) * 25)._repr_html_()


@pytest.mark.parametrize(
    ("count", "words"), [(7, "7"), (1500, "1.5 k"), (4_851_000, "4.9 M"), (1_200_000_000, "1.2 B")]
)
def test_counts_in_words(count, words):
    assert count_in_words(count) == words


class Backwards(Sampler):
    """Turns an image into noise by its mean colour and brightness, and keeps what it is asked to
    draw."""

    drawn: ClassVar = []

    def sample(self, generator, request):
        z = request.noise.start("z", generator.noise_shape)
        Backwards.drawn.append((z, request.text))
        return generator(z, request.text)

    def inverts(self, generator):
        return True

    def invert(self, generator, images, request):
        return torch.cat([images.mean((2, 3)), images.amax((1, 2, 3))[:, None]], 1)


class Plugin:
    @hookimpl
    def t2i_samplers(self):
        return [
            SamplerSpec(
                name="backwards", summary="x", config="t2i.core.interfaces.sampler:SamplerConfig",
                build="t2i_backwards:Backwards", families=("one-shot",),
            )
        ]  # fmt: skip


def test_interpolation_draws_from_the_noise_between(model, plug, monkeypatch):
    monkeypatch.setitem(sys.modules, "t2i_backwards", SimpleNamespace(Backwards=Backwards))
    plug(Plugin())
    Backwards.drawn.clear()
    first, last = np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8, 3), np.uint8)
    first[..., 2], last[..., 0] = 0, 255
    (images,) = interpolate(
        model, first, last, "a red image", n=3, sampler=model.sampler("backwards")
    )
    assert [(d.prompt, d.sample, d.image.shape) for d in images] == [
        (0, i, (8, 8, 3)) for i in range(3)
    ]
    ((noise, text),) = Backwards.drawn
    assert text.captions == ("a red image",) * 3
    a, b = torch.tensor([1.0, 1, -1, 1]), torch.tensor([1.0, -1, -1, 1])
    torch.testing.assert_close(noise[[0, 2]], torch.stack([a, b]))
    # Half way: at half the angle between the two, which is 60 degrees, and as long as they are.
    torch.testing.assert_close(noise[1], (a + b) / 3**0.5)
    with pytest.raises(
        UserError, match=r"'direct' cannot turn images into noise.*use --sampler backwards"
    ):
        next(interpolate(model, first, last))
    with pytest.raises(UserError, match=r"interpolates between \(8, 8, 3\)"):
        next(interpolate(model, first[:4], last, sampler=model.sampler("backwards")))


def test_a_misfit_sampler_is_refused_with_those_that_fit(model):
    with pytest.raises(
        UserError,
        match=r"'ddim' draws from diffusion models, but 'toy' is one-shot: use --sampler direct",
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
    from t2i.core.models.weights import owned_tensors

    tied = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    tied["b"].weight = tied["a"].weight
    save_tensors(tmp_path / "t.safetensors", owned_tensors(tied))
    with torch.no_grad():
        tied["a"].weight.zero_()
    load_state(tied, load_tensors(tmp_path / "t.safetensors", "t"), "t")
    assert tied["b"].weight.abs().sum() > 0
