"""The authors' trees of generators and their discriminators, written down from the papers as plain
functions of state dicts with the released files' names; what tests of StackGAN-v2 and DM-GAN share.
"""

import torch
from torch import nn
from torch.nn import functional as F

from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch
from tests.plugins.models.stand_ins import Recorder as Recorder

TEXT = TextShape(8, 6)


def text(n, length=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    sentence, words = torch.randn(n, 8, generator=draw), torch.randn(n, length, 6, generator=draw)
    return TextFeatures(sentence, words, torch.ones(n, length, dtype=torch.bool), ("",) * n)


def random_tensors(shapes, seed=0):
    """Tensors of some shapes that all matter: variances positive, weights scaled to their size."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=draw)
        if name.endswith("running_var"):
            value = value.abs() + 0.5
        elif name.endswith(("_u", "_v")):
            value = value / value.norm()
        elif len(shape) > 1:
            value = value / value[0].numel() ** 0.5
        else:
            value = 0.2 * value + (1 if name.endswith("weight") else 0)
        state[name] = value
    return state


def norm_shapes(name, n):
    """A batch norm's; the released files come from before num_batches_tracked."""
    return {f"{name}.{key}": (n,) for key in ("weight", "bias", "running_mean", "running_var")}


def first_shapes(gf, sentence, z, c):
    top = 16 * gf
    shapes = {"ca_net.fc.weight": (4 * c, sentence), "ca_net.fc.bias": (4 * c,)}
    shapes |= {"h_net1.fc.0.weight": (32 * top, c + z), **norm_shapes("h_net1.fc.1", 32 * top)}
    for i in range(4):
        shapes |= up_shapes(f"h_net1.upsample{i + 1}", top >> i, top >> (i + 1))
    return shapes


def up_shapes(name, c_in, c_out):
    return {f"{name}.1.weight": (2 * c_out, c_in, 3, 3), **norm_shapes(f"{name}.2", 2 * c_out)}


def residual_shapes(name, c):
    return {
        f"{name}.block.0.weight": (2 * c, c, 3, 3), **norm_shapes(f"{name}.block.1", 2 * c),
        f"{name}.block.3.weight": (c, c, 3, 3), **norm_shapes(f"{name}.block.4", c),
    }  # fmt: skip


def gate(x):
    half = x.shape[1] // 2
    return x[:, :half] * torch.sigmoid(x[:, half:])


def norm(state, name, x):
    part = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *part)


def conv(state, name, x, **options):
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)


def up(state, name, x):
    x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return gate(norm(state, f"{name}.2", conv(state, f"{name}.1", x, padding=1)))


def residual(state, name, x):
    n = 0
    while f"{name}.{n}.block.0.weight" in state:
        block = f"{name}.{n}.block"
        y = gate(norm(state, f"{block}.1", conv(state, f"{block}.0", x, padding=1)))
        x = x + norm(state, f"{block}.4", conv(state, f"{block}.3", y, padding=1))
        n += 1
    return x


def condition(state, sentence, eps):
    """c^ and mu."""
    both = gate(sentence @ state["ca_net.fc.weight"].T + state["ca_net.fc.bias"])
    mean, logvar = both.chunk(2, 1)
    return mean + eps * (logvar / 2).exp(), mean


def first(state, c, z):
    h = torch.cat([c, z], 1) @ state["h_net1.fc.0.weight"].T
    h = gate(norm(state, "h_net1.fc.1", h)).view(len(z), -1, 4, 4)
    for i in range(4):
        h = up(state, f"h_net1.upsample{i + 1}", h)
    return h


def rgb(state, n, h):
    return torch.tanh(conv(state, f"img_net{n}.img.0", h, padding=1))


class Letters(TextEncoder):
    """One vector a letter."""

    def __init__(self, frozen=True):
        super().__init__()
        self.shape = TEXT
        self.table = nn.Embedding(128, 8).requires_grad_(not frozen)

    def encode(self, captions):
        rows = [[ord(letter) for letter in caption] for caption in captions]
        length = max(map(len, rows))
        mask = torch.tensor([[i < len(row) for i in range(length)] for row in rows])
        letters = self.table(torch.tensor([row + [0] * (length - len(row)) for row in rows]))
        return TextFeatures(letters.mean(1), letters[..., :6], mask, tuple(captions))


def batch(encoder, n=4, step=5, size=32):
    images = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(step)) * 2 - 1
    captions = tuple("abcdefgh"[: i + 1] for i in range(n))
    return Batch(images, captions, captions, StepNoise(0, step, 0, n, n), encoder.encode, {})


def says(logits, real):
    p = torch.sigmoid(logits)
    return -(p if real else 1 - p).log().mean()
