"""Generators of GAN-CLS from their files: the authors' of Torch 7, and the port's.

`authors` and `ported` are independent readings of main_cls.lua and of the port, as plain functions
of the files' layers.
"""

import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures
from t2i.core.models.importing import import_weights
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.gancls import weights

sys.path.insert(0, str(Path(__file__).parents[1] / "common" / "weights"))
from torch7_writer import Lua, torch7

E, NT, Z, NGF = 8, 5, 6, 4


def draw(*shape, scale=1.0):
    return torch.randn(*shape) * scale


class Net:
    """The authors' G, as a tree of Lua objects and as a list of layers in their order."""

    def __init__(self, library="nn", old=False, residuals=True):
        torch.manual_seed(0)
        self.library, self.old, self.layers = library, old, []
        text = [self.linear(E, NT), Lua("nn.LeakyReLU", {"negval": 0.2})]
        both = Lua("nn.ParallelTable", {"modules": [Lua("nn.Identity"), self.sequence(text)]})
        inside = [both, Lua("nn.JoinTable"), self.full(Z + NT, 8 * NGF), self.norm(8 * NGF)]
        for i, (a, b) in enumerate(pairwise([8 * NGF, 4 * NGF, 2 * NGF, NGF])):
            if i < 2:
                inside += self.residual(a) if residuals else []
            inside += [self.named("ReLU"), self.full(a, b), self.norm(b)]
        inside += [self.named("ReLU"), self.full(NGF, 3), self.named("Tanh")]
        self.module = self.sequence(inside)

    def named(self, name, fields=None):
        return Lua(f"{self.library}.{name}", fields)

    def sequence(self, modules):
        return Lua("nn.Sequential", {"modules": modules, "train": False})

    def add(self, kind, fields, library="nn"):
        self.layers.append(fields)
        return Lua(f"{library}.{kind}", fields)

    def linear(self, a, b):
        return self.add("Linear", {"weight": draw(b, a, scale=a**-0.5), "bias": draw(b)})

    def conv(self, a, b, size):
        weight = draw(b, a, size, size, scale=(a * size**2) ** -0.5)
        return self.add(
            "SpatialConvolution", {"weight": weight, "bias": draw(b, scale=0.1)}, self.library
        )

    def full(self, a, b):
        weight = draw(a, b, 4, 4, scale=(4 * a) ** -0.5)
        return self.add(
            "SpatialFullConvolution", {"weight": weight, "bias": draw(b, scale=0.1)}, self.library
        )

    def norm(self, c):
        mean, var = draw(c, scale=0.3), torch.rand(c) + 0.5
        fields = {"weight": draw(c) + 2, "bias": draw(c, scale=0.3), "running_mean": mean}
        kept = {"running_std": (var + 1e-3) ** -0.5} if self.old else {"running_var": var}
        return self.add("SpatialBatchNormalization", fields | kept | {"eps": 1e-3}, self.library)

    def residual(self, c):
        inside = [self.conv(c, c // 4, 1), self.norm(c // 4), self.named("ReLU")]
        inside += [self.conv(c // 4, c // 4, 3), self.norm(c // 4), self.named("ReLU")]
        inside += [self.conv(c // 4, c, 3), self.norm(c)]
        table = Lua("nn.ConcatTable", {"modules": [Lua("nn.Identity"), self.sequence(inside)]})
        return [table, Lua("nn.CAddTable")]


def authors(net, z, e, residuals=True):
    """The image of the authors' G from its layers, in float64."""
    layers = iter(
        {k: v.double() if torch.is_tensor(v) else v for k, v in fields.items()}
        for fields in net.layers
    )

    def norm(x):
        n = next(layers)
        var = n["running_var"] if "running_var" in n else n["running_std"] ** -2 - n["eps"]
        parts = (n["running_mean"], (var + n["eps"]).sqrt(), n["weight"], n["bias"])
        mean, std, gain, bias = (part.view(1, -1, 1, 1) for part in parts)
        return (x - mean) / std * gain + bias

    def full(x, stride, padding):
        n = next(layers)
        return F.conv_transpose2d(x, n["weight"], n["bias"], stride, padding)

    def conv(x):
        n = next(layers)
        return F.conv2d(x, n["weight"], n["bias"], padding=n["weight"].shape[-1] // 2)

    n = next(layers)
    t = e.double() @ n["weight"].T + n["bias"]
    x = torch.cat([z.double(), torch.where(t > 0, t, 0.2 * t)], 1)[:, :, None, None]
    x = norm(full(x, 1, 0))
    for i in range(3):
        if i < 2 and residuals:
            h = norm(conv(x)).relu()
            x = x + norm(conv(norm(conv(h)).relu()))
        x = norm(full(x.relu(), 2, 1))
    return torch.tanh(full(x.relu(), 2, 1))


SENTENCES = (f"encoder.width={E}", "encoder.heads=1")


def config():
    return resolve_config("gancls", sets=SENTENCES, data_needed=False)


@pytest.mark.parametrize(
    ("library", "old", "residuals"),
    [("nn", False, True), ("cudnn", True, True), ("nn", False, False)],
)
def test_a_file_of_the_authors_gives_their_image(tmp_path, library, old, residuals):
    """Sizes are the file's, with the biases that the last step left and either kind of
    statistics."""
    net = Net(library, old, residuals)
    path = torch7(tmp_path / "net_G.t7", net.module, cuda=library == "cudnn")
    model = weights.load(config(), [path])
    settings = model.config.settings
    assert (settings.ngf, settings.nt, settings.z_dim, settings.image_size) == (NGF, NT, Z, 64)
    assert settings.residuals == residuals
    e, z = torch.randn(3, E), torch.randn(3, Z)
    generator = model.generator.double().eval()
    ours = generator(z.double(), TextFeatures.of(sentence=e.double()))
    theirs = authors(net, z, e, residuals)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_it_is_imported_saved_and_sampled(tmp_path):
    from t2i import load

    path = torch7(tmp_path / "net_G.t7", Net().module)
    run = import_weights("gancls", [path], tmp_path / "run", preset="tiny", sets=SENTENCES)
    (image,) = load(run.path, "cpu").sample(["a red circle"], seed=1)
    assert image.size == (64, 64)


def port_file():
    """The port's state dict of a generator."""
    torch.manual_seed(0)
    state = {"projection.0.weight": draw(NT, E, scale=E**-0.5), "projection.0.bias": draw(NT)}
    sides = [Z + NT, 8 * NGF, 4 * NGF, 2 * NGF, NGF, 3]
    for i, (a, b) in enumerate(pairwise(sides)):
        state[f"netG.{3 * i}.weight"] = draw(a, b, 4, 4, scale=(4 * a) ** -0.5)
    for name, c in [
        ("projection.1", NT),
        *((f"netG.{3 * i + 1}", c) for i, c in enumerate(sides[1:5])),
    ]:
        state |= {
            f"{name}.weight": draw(c) + 2, f"{name}.bias": draw(c),
            f"{name}.running_mean": draw(c), f"{name}.running_var": torch.rand(c) + 0.5,
        }  # fmt: skip
    return state


def ported(state, z, e):
    """The port's image: text first, then noise."""

    def norm(x, name):
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}.{key}"] for key in keys))

    t = e @ state["projection.0.weight"].T + state["projection.0.bias"]
    x = torch.cat([F.leaky_relu(norm(t, "projection.1"), 0.2), z], 1)[:, :, None, None]
    for i in range(5):
        x = F.conv_transpose2d(x, state[f"netG.{3 * i}.weight"], None, min(i, 1) + 1, min(i, 1))
        x = norm(x, f"netG.{3 * i + 1}").relu() if i < 4 else torch.tanh(x)
    return x


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_of_the_port_gives_its_image(tmp_path, prefix):
    state = port_file()
    torch.save({prefix + k: v for k, v in state.items()}, tmp_path / "gen_190.pth")
    model = weights.load(config(), [tmp_path / "gen_190.pth"])
    e, z = torch.randn(3, E), torch.randn(3, Z)
    ours = model.generator.eval()(z, TextFeatures.of(sentence=e))
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, ported(state, z, e), atol=1e-4, rtol=0)


def test_refuses_what_is_no_generator(tmp_path):
    net = Net()
    del net.module.fields["modules"][4]
    with pytest.raises(UserError, match="not in the order of the authors' generator"):
        weights.load(config(), [torch7(tmp_path / "a.t7", net.module)])
    with pytest.raises(UserError, match=r"no generator of GAN-CLS \(its layers with weights: none"):
        weights.load(config(), [torch7(tmp_path / "b.t7", Lua("nn.Tanh"))])
    broken = Net()
    broken.layers[0].pop("weight")
    with pytest.raises(UserError, match="a Linear without its weights"):
        weights.load(config(), [torch7(tmp_path / "c.t7", broken.module)])
    torch.save({"a": torch.ones(1)}, tmp_path / "d.pth")
    with pytest.raises(UserError, match=r"no 'netG' and 'projection'"):
        weights.load(config(), [tmp_path / "d.pth"])
    with pytest.raises(UserError, match="one file is expected"):
        weights.load(config(), [tmp_path / "d.pth"] * 2)
    words = resolve_config("gancls", data_needed=False)
    with pytest.raises(UserError, match=r"sentences of 8 numbers, the text encoder 'words' has"):
        weights.load(words, [torch7(tmp_path / "e.t7", Net().module)])
