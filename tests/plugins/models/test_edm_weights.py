"""EDM's own networks against second derivations, and the import of converted files."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.models.weights import owned_tensors
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.edm.authors import AuthorsUNet, DhariwalUNet, SongUNet, authors_network
from t2i.plugins.models.edm.blocks import (
    BlockSettings,
    FourierEmbedding,
    PositionalEmbedding,
    Resampled,
    Start,
    UNetBlock,
)
from t2i.plugins.models.edm.config import AuthorsConfig, EDMConfig
from t2i.plugins.models.edm.preconditioning import iddpm_levels
from t2i.plugins.models.edm.weights import load_weights

SIZES = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (8,)}
KINDS = ("ddpmpp", "ncsnpp", "adm")


def drawn(module):
    """The module with all parameters drawn at random, in float64 and evaluation mode."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return module.double().eval()


def network(kind, classes=(), labels=0, out=3, **settings):
    config = AuthorsConfig.of({"kind": kind, **SIZES, **settings}, "test")
    made = DhariwalUNet if kind == "adm" else SongUNet
    return made(config, 16, out, len(classes) or labels, classes)


@pytest.mark.parametrize(
    ("kind", "settings", "count"),
    [
        ("ddpmpp", {}, 55_732_739),
        ("ncsnpp", {}, 56_395_523),
        ("adm", {"channels": 192, "multipliers": (1, 2, 3, 4), "blocks": 3,
                 "attention": (32, 16, 8)}, 295_131_267),
    ],
)  # fmt: skip
def test_the_papers_networks_have_their_sizes(kind, settings, count):
    config = EDMConfig.of({"network": {"kind": kind, **settings}, "image_size": 64}, "test")
    with torch.device("meta"):
        made = authors_network(config, TextShape(1, 1))
    assert sum(p.numel() for p in made.parameters()) == count


def test_resampling_by_ones_is_pooling_and_repetition():
    x = torch.randn(2, 3, 6, 6)
    down, up = (Resampled(3, 3, 0, up, (1, 1), Start("xavier")) for up in (False, True))
    torch.testing.assert_close(down(x), F.avg_pool2d(x, 2))
    torch.testing.assert_close(up(x), F.interpolate(x, scale_factor=2))
    conv = Resampled(3, 5, 3, True, (1, 1), Start("xavier", 1, 1))
    expected = F.conv2d(F.interpolate(x, scale_factor=2), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(x), expected)


def test_the_fused_filter_is_one_convolution():
    """The filter [1, 3, 3, 1] behind a 3x3 kernel is a kernel of 6x6 with stride 2."""
    fused = drawn(Resampled(3, 4, 3, False, (1, 3, 3, 1), Start("xavier"), fused=True))
    along = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64) / 8
    spread = F.pad(along.outer(along)[None, None], (2, 2, 2, 2))
    kernel = torch.stack([
        F.conv2d(spread.expand(1, 3, -1, -1), one.flip(1, 2)[:, None], groups=3)[0]
        for one in fused.weight
    ])  # fmt: skip
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(fused(x), F.conv2d(x, kernel, fused.bias, stride=2, padding=2))


def test_attention_is_that_of_each_head():
    start = Start("kaiming")
    shared = BlockSettings(6, 0.0, 2, 1.0, 1e-5, (1, 1), False, True, start, start, start)
    block = drawn(UNetBlock(8, 8, shared, attends=True))
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    qkv = block.qkv(block.norm2(x)).reshape(2, 2, 4, 3, 9)  # heads, channels, (q k v), places
    q, k, v = qkv[:, :, :, 0], qkv[:, :, :, 1], qkv[:, :, :, 2]
    weight = torch.einsum("bhcq,bhck->bhqk", q, k / 2).softmax(-1)
    gathered = torch.einsum("bhqk,bhck->bhcq", weight, v).reshape(2, 8, 3, 3)
    torch.testing.assert_close(block._attended(x), block.proj(gathered))


def test_embeddings_have_their_frequencies():
    x = torch.tensor([0.7, -1.3])
    ended = PositionalEmbedding(8, True)(x)
    torch.testing.assert_close(ended[:, 3], (x * 1e-4).cos())
    torch.testing.assert_close(ended[:, 4], x.sin())
    torch.testing.assert_close(PositionalEmbedding(8, False)(x)[:, 1], (x * 0.1).cos())
    fourier = FourierEmbedding(2000)
    assert float(fourier.freqs.std()) == pytest.approx(16, rel=0.1)
    torch.testing.assert_close(fourier(x)[:, 0], (2 * torch.pi * x * fourier.freqs[0]).cos())


@pytest.mark.parametrize("kind", KINDS)
def test_text_reaches_every_network(kind):
    made = drawn(network(kind, labels=5))
    x, c = torch.randn(2, 3, 16, 16, dtype=torch.float64), torch.zeros(2)
    a, b = (
        made(x, c, made.condition(TextFeatures.of(sentence=torch.randn(2, 5).double())))
        for _ in range(2)
    )
    assert not torch.allclose(a, b)
    with pytest.raises(ValueError, match="condition"):
        made(x, c, TextFeatures.of(sentence=torch.zeros(2, 5)))


def test_channels_that_cannot_be_divided_are_refused_and_few_have_one_head():
    with pytest.raises(UserError, match=r"130 channels: .* 32 groups"):
        network("ddpmpp", channels=130)
    with pytest.raises(UserError, match=r"2 channels: .* 0 groups"):
        network("ddpmpp", channels=2, multipliers=(1,))
    with pytest.raises(UserError, match=r"224 channels: .* 3 heads"):
        network("adm", channels=224, multipliers=(1,), attention=(16,))
    text = TextFeatures.of(sentence=torch.zeros(1, 1))
    with torch.no_grad():  # 32 channels attend
        assert (
            network("adm", channels=16)(torch.zeros(1, 3, 16, 16), torch.ones(1), text).any() == 0
        )


def test_an_unused_unet_does_not_bound_the_size():
    own = {"channels": 32, "multipliers": (1, 2)}
    assert EDMConfig.of({"image_size": 36, "network": own}, "test").image_size == 36


def released(path, made: AuthorsUNet, **more):
    """Write a network as the command that converts released files writes it."""
    state = {f"model.{name}": t.float().clone() for name, t in owned_tensors(made).items()}
    state["model.map_augment.weight"] = torch.zeros(made.map_layer0.weight.shape[1], 9)
    save_file({**state, **more}, path)
    return path


def imported(path, *sets):
    config = resolve_config(
        "edm", preset="cifar", data_needed=False, sets=sets, overrides={"sampler": {"name": "ddim"}}
    )
    return load_weights(config, [path])


@pytest.mark.parametrize("kind", KINDS)
def test_a_converted_network_is_imported_with_its_own_settings(tmp_path, kind):
    own = drawn(network(kind)).float()
    model = imported(released(tmp_path / "x.safetensors", own))
    found = model.config.settings.network
    assert (found.kind, found.channels, found.multipliers) == (kind, 32, (1, 2))
    assert (found.blocks, found.attention, model.config.settings.image_size) == (1, (8,), 16)
    assert model.config.encoder.name == "none"
    x, sigma = torch.randn(3, 3, 16, 16), torch.tensor([0.1, 1.0, 50.0])
    text = model.generator.condition(model.text_encoder.encode(["", "a cat", "."]))
    denoised = model.generator.eval()(x, sigma, text)
    s = sigma.view(-1, 1, 1, 1)
    total = s**2 + 0.25
    output = own(x / total.sqrt(), sigma.log() / 4, text)
    torch.testing.assert_close(denoised, 0.25 / total * x + s * 0.5 / total.sqrt() * output)


@pytest.mark.parametrize("kind", ["ddpmpp", "adm"])
def test_classes_are_asked_for_by_name(tmp_path, kind):
    own = drawn(network(kind, classes=("cat", "dog"))).float()
    path = released(tmp_path / "x.safetensors", own)
    model = imported(path, 'classes=["cat","dog"]')
    text = model.generator.condition(model.text_encoder.encode(["dog", "", "cat"]))
    scale = 2**0.5 if kind == "ddpmpp" else 1.0
    classes = torch.tensor([[0, scale], [0, 0], [scale, 0]])
    torch.testing.assert_close(text.extras["class embedding"], own.map_label(classes))
    assert imported(path).config.settings.classes == ("0", "1")
    with pytest.raises(UserError, match="know classes only, by name: cat, dog"):
        model.generator.condition(model.text_encoder.encode(["a bird"]))
    with pytest.raises(UserError, match=r"3 are named, and .* has 2"):
        imported(path, 'classes=["a","b","c"]')


def test_iddpms_network_is_recognised_and_its_variance_left_out(tmp_path):
    own = drawn(network("adm", out=6)).float()
    levels = {"u": iddpm_levels().float()}
    model = imported(released(tmp_path / "x.safetensors", own, **levels))
    assert model.config.settings.preconditioning == "iddpm"
    text = model.text_encoder.encode([""])
    assert model.generator.eval()(torch.zeros(1, 3, 16, 16), torch.ones(1), text).shape[1] == 3
    wrong = released(tmp_path / "y.safetensors", own, u=torch.ones(1001))
    with pytest.raises(UserError, match="not those of iDDPM"):
        imported(wrong)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return eval, (f"open({str(self.path)!r}, 'w').write('ran')",)


@pytest.mark.parametrize("name", ["edm-cifar10-32x32-cond-vp.pkl", "renamed.safetensors"])
def test_released_pickles_are_refused_with_the_command_that_converts_them(tmp_path, name):
    path, trace = tmp_path / name, tmp_path / "trace"
    path.write_bytes(pickle.dumps({"ema": Bomb(trace)}))
    with pytest.raises(UserError) as caught:
        imported(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "NVlabs/edm: python -c" in message
    assert f"'{path.stem}.safetensors'" in message
    assert not trace.exists()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"model.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="no network of EDM's code"):
        imported(path)
    made = network("ddpmpp")
    state = {n: t.clone() for n, t in owned_tensors(made).items() if n != "map_layer1.bias"}
    save_file(state, path)
    with pytest.raises(UserError, match=r"map_layer1\.bias is missing"):
        imported(path)
    changed = {n: t.clone() for n, t in owned_tensors(made).items()}
    for name, tensor in {
        "enc.16x16_conv.weight": torch.tensor(1.0),
        "enc.16x16_block0.conv0.weight": torch.zeros(0),
    }.items():
        save_file({**changed, name: tensor}, path)
        with pytest.raises(UserError, match=f"'{name}' is missing, or has another shape"):
            imported(path)
    save_file({n: t for n, t in changed.items() if "8x8_block0.conv0" not in n}, path)
    with pytest.raises(UserError, match=r"'enc\.8x8_block0\.conv0\.weight' is missing"):
        imported(path)
    config = resolve_config(
        "edm", preset="cifar", data_needed=False, overrides={"sampler": {"name": "ddim"}}
    )
    with pytest.raises(UserError, match="2 are given"):
        load_weights(config, [path, path])
