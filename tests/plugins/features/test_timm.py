"""`timm` and `dinov2` on random weights of timm's own tiny networks, in the format in which they
are published."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from t2i.core.errors import UserError
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.plugins.features.timm.config import Dinov2Config

VIT, CNN = "test_vit.r160_in1k", "test_resnet.r160_in1k"


def build(name="timm", **settings):
    spec = registry().features[name]
    return import_object(spec.build)(import_object(spec.config).of(settings, "test")).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights, with the classifier that published ones have, by the model's name."""
    root = tmp_path_factory.mktemp("timm")

    def written(model):
        folder = root / model
        if not folder.exists():
            folder.mkdir()
            torch.manual_seed(3)
            save_file(timm.create_model(model).state_dict(), folder / "model.safetensors")
        return folder / "model.safetensors"

    return written


def make_images(side=200, count=3):
    small = np.random.default_rng(0).integers(0, 256, (count, 9, 9, 3)).astype(np.uint8)
    return [Image.fromarray(one).resize((side, side), Image.BICUBIC) for one in small]


def stacked(images):
    return (
        torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        .permute(0, 3, 1, 2)
        .contiguous()
    )


@pytest.mark.parametrize("model", [VIT, CNN])
@torch.no_grad()
def test_features_are_timms_own_of_images_as_pillow_resizes_them(model, weights):
    features = build(model=model, weights=str(weights(model)))
    torch.manual_seed(3)
    network = timm.create_model(model).eval()
    network.reset_classifier(0)
    wants = timm.data.resolve_model_data_config(network)
    how = {"bicubic": Image.BICUBIC, "bilinear": Image.BILINEAR}[wants["interpolation"]]
    pixels = stacked([image.resize(wants["input_size"][-2:], how) for image in make_images()]) / 255
    mean, std = (torch.tensor(wants[name]).view(3, 1, 1) for name in ("mean", "std"))
    theirs = network((pixels - mean) / std)
    ours = features(stacked(make_images()))
    assert ours.shape == (3, features.dim)
    torch.testing.assert_close(
        ours, theirs, rtol=0, atol=1e-2 * float(theirs.abs().max())
    )  # 8-bit rounding differs
    apart = torch.cat([features(stacked([image])) for image in make_images()])
    torch.testing.assert_close(ours, apart, rtol=1e-5, atol=1e-5)


def test_the_side_of_images_is_a_setting_also_where_positions_are_learnt(weights):
    features = build(
        model=VIT, weights=str(weights(VIT).parent), image_size=96
    )  # a folder does too
    assert features.size == (96, 96)
    assert features(stacked(make_images(96))).shape == (3, features.dim)
    plain = build(model=VIT, weights=str(weights(VIT)))
    assert plain.weights_sha256 != features.weights_sha256  # its positions are interpolated


def test_it_says_what_it_is(weights):
    features = build(model=CNN, weights=str(weights(CNN)))
    assert features.name == f"timm {CNN} at 160"
    assert features.is_named(CNN)
    assert not features.is_named(VIT)
    assert len(features.weights_sha256) == 64


def test_dinov2_is_that_of_the_frechet_distance_on_it():
    config = Dinov2Config()
    assert (config.model, config.image_size) == ("vit_large_patch14_dinov2.lvd142m", 224)


@pytest.mark.parametrize("name", ["timm", "dinov2"])
def test_weights_of_another_network_are_refused(name, weights, tmp_path):
    with pytest.raises(UserError, match=f"features '{name}': these are no weights of {VIT}"):
        build(name, model=VIT, weights=str(weights(CNN)))
    state = timm.create_model(VIT).state_dict()
    state.pop("blocks.0.attn.qkv.weight")
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match=f"features '{name}': these are no weights of {VIT}"):
        build(name, model=VIT, weights=str(tmp_path / "half.safetensors"))


def test_what_is_not_there_is_refused_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("t2i.plugins.common.weights.hub.PROBE_SECONDS", 0.01)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError,
        match=r"features 'dinov2': 'timm/vit_large.* 't2i fetch dinov2', or set its weights",
    ):
        build("dinov2")
    with pytest.raises(
        UserError, match=r"features 'timm': .* or set its weights to a \.safetensors file"
    ):
        build("timm", model=CNN)
    with pytest.raises(UserError, match=r"timm has no model 'resnot50\.a1_in1k'"):
        build("timm", model="resnot50.a1_in1k")
