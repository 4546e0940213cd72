"""`inception` and `vgg16` are torch-fidelity's own networks, and their weights are read without
running anything."""

import hashlib
import os
import pickle

import numpy as np
import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as theirs
from PIL import Image
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
from torchvision.models import vgg16

from t2i.core.errors import UserError
from t2i.core.kit.conformance import scores
from t2i.core.kit.conformance.subject import Part
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.plugins.features.fidelity.features import FORCE, ResizedInception, plain_weights
from t2i.plugins.features.fidelity.resizing import WAYS

FILE = "weights-inception-2015-12-05-6726825d.pth"


def build(name, **settings):
    spec = registry().features[name]
    return import_object(spec.build)(import_object(spec.config).of(settings, "test")).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights as torch-fidelity publishes its own: the state dict of its class, as
    torch.save writes it."""
    path = tmp_path_factory.mktemp("inception") / FILE

    class Fresh(theirs.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            """There is none yet."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *given, **named: {})
        network = Fresh("inception-v3-compat", ["2048"])
    stream = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if name.endswith("conv.weight"):  # keeps the spread of the activations through all layers
            parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=stream)
    torch.save(network.state_dict(), path)
    return path


def test_the_layers_that_are_called_here_are_torch_fidelitys_own(weights):
    """At 299 pixels nothing is resized, so both must give the same bits."""
    given, usual = images(1, 299), build("inception", weights=str(weights))
    ours = ResizedInception(weights, "nobody", lambda images: (images.float() - 128) / 128)
    assert torch.equal(ours(given), usual(given))


@pytest.mark.parametrize("side", [40, 299, 350])
def test_images_are_resized_as_clean_fid_does(side):
    """Its mode "clean": each channel by Pillow's bicubic filter in floating point, cut to 0 to 255,
    not rounded."""
    given = images(1, side)
    channels = [
        np.asarray(Image.fromarray(channel).resize((299, 299), Image.BICUBIC))
        for channel in given[0].numpy().astype(np.float32)
    ]
    want = (torch.from_numpy(np.stack(channels).clip(0, 255)) - 128) / 128
    assert torch.equal(WAYS["clean-fid"](given)[0], want)
    assert (want * 128 % 1 != 0).any() or side == 299  # not rounded to 8 bits


def test_images_are_resized_as_pytorch_fid_does():
    """Bilinear between the centres of pixels, scaled from -1 to 1: by hand, for one pixel."""
    given = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    given[:, :, 1, 1] = 255
    found = WAYS["pytorch-fid"](given)
    at = (np.arange(299) + 0.5) * 2 / 299 - 0.5
    share = torch.from_numpy(at.clip(0, 1)).float()
    want = 2 * share[:, None] * share[None, :] - 1
    assert torch.allclose(found[0, 0], want, atol=1e-5)


def test_the_way_of_resizing_is_part_of_the_name(weights):
    usual = build("inception", weights=str(weights))
    other = build("inception", weights=str(weights), resize="clean-fid")
    assert usual.name == "inception-v3-compat"
    assert other.name == "inception-v3-compat, resized as clean-fid"
    assert other.weights_sha256 == usual.weights_sha256
    given = images(1)
    assert not torch.allclose(other(given), usual(given), rtol=1e-3)


def images(count, side=40):
    found = np.random.default_rng(0).integers(0, 256, (count, 3, side, side)).astype(np.uint8)
    return torch.from_numpy(found)


def test_inception_is_torch_fidelitys(weights):
    ours = build("inception", weights=str(weights))
    network = theirs.FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        feature_extractor_weights_path=str(weights),
    )
    pool, logits = network(images(2))
    found = ours(images(2))
    assert found.shape == (2, ours.dim) == (2, 3056)
    assert torch.equal(found[:, ours.layers["pool"]], pool)
    assert torch.equal(found[:, ours.layers["logits"]], logits)
    assert pool.std() > 0.01
    assert ours.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["inception", "vgg16"])
def test_missing_weights_are_refused_with_the_command_that_gets_them(name, tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"'t2i fetch {name}' gets it"):
        build(name)
    with pytest.raises(
        UserError, match=rf"{tmp_path}/no\.pth: No such file or directory; 't2i fetch {name}' gets"
    ):
        build(name, weights=str(tmp_path / "no.pth"))


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def test_nothing_in_a_file_of_weights_is_run(tmp_path):
    """torch-fidelity itself would run it."""
    path = tmp_path / FILE
    torch.save({"fc.weight": torch.zeros(1), "bomb": Bomb()}, path)
    with pytest.raises(UserError, match="neither safetensors nor plain tensors"):
        build("inception", weights=str(path))
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="neither safetensors nor plain tensors"):
        build("inception", weights=str(path))


def test_torchs_loader_reads_plain_tensors_only_while_torch_fidelity_loads(tmp_path):
    torch.save({"bomb": Bomb()}, tmp_path / FILE)
    with plain_weights(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / FILE, weights_only=False)
    assert FORCE not in os.environ


def test_other_files_are_refused_in_one_line(tmp_path):
    path = tmp_path / FILE
    torch.save({"fc.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="are not those of inception-v3-compat") as caught:
        build("inception", weights=str(path))
    assert "\n" not in str(caught.value)
    save_file({"fc.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="safetensors, which torch-fidelity does not read"):
        build("inception", weights=str(path))


@pytest.mark.slow
def test_the_kit_finds_nothing_where_the_weights_are_fetched(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    (tmp_path / "fetched" / "inception").mkdir(parents=True)
    (tmp_path / "fetched" / "inception" / FILE).symlink_to(weights)
    scores.vectors(Part("features", "inception"))


@pytest.mark.slow
def test_vgg16_is_torch_fidelitys(tmp_path):
    path = tmp_path / "vgg16-397923af.pth"
    torch.manual_seed(0)
    torch.save(vgg16().state_dict(), path)
    ours = build("vgg16", weights=str(path))
    network = FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=str(path))
    found = ours(images(2))
    assert found.shape == (2, ours.dim) == (2, 4096)
    assert torch.equal(found, network(images(2))[0])
    assert found.std() > 0
