"""ADM's U-Net and encoder against plain functions of their state dicts, written from the papers."""

import math

import pytest
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.adm.conditional import AdmNetwork, class_numbers
from t2i.plugins.common.diffusion.adm.config import AdmConfig
from t2i.plugins.common.diffusion.adm.unet import AdmEncoder, AdmUNet

SMALL = {"base": 16, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "groups": 4,
         "head_width": 8}  # fmt: skip


def drawn(module):
    """The module with all parameters drawn at random, in float64 and evaluation mode."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return module.double().eval()


class Plain:
    """The networks as functions of a state dict."""

    def __init__(self, config, state):
        self.c, self.s = config, state
        self.act = F.silu if config.activation == "silu" else F.gelu

    def layer(self, name, x, **more):
        w, b = self.s[f"{name}.weight"], self.s[f"{name}.bias"]
        if w.dim() == 2:
            return x @ w.T + b
        kind = F.conv1d if w.dim() == 3 else F.conv2d
        return kind(x, w, b, padding=w.shape[-1] // 2, **more)

    def norm(self, name, x):
        shape = (len(x), self.c.groups, -1)
        g = x.reshape(shape)
        g = (g - g.mean(2, keepdim=True)) / (g.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
        by = (1, -1, *[1] * (x.dim() - 2))
        return g.view_as(x) * self.s[f"{name}.weight"].view(by) + self.s[f"{name}.bias"].view(by)

    def embedded(self, t, extra):
        half = self.c.base // 2
        waves = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
        waves = torch.cat([waves.cos(), waves.sin()], 1).double()
        emb = self.layer("time_embed.2", self.act(self.layer("time_embed.0", waves)))
        return emb if extra is None else emb + extra

    def block(self, name, x, emb, resample=None):
        def sized(y):
            if resample == "down":
                b, c, h, w = y.shape
                return y.view(b, c, h // 2, 2, w // 2, 2).mean((3, 5))
            if resample == "up":
                return y.repeat_interleave(2, 2).repeat_interleave(2, 3)
            return y

        h = sized(self.act(self.norm(f"{name}.in_layers.0", x)))
        h = self.layer(f"{name}.in_layers.2", h)
        shift = self.layer(f"{name}.emb_layers.1", self.act(emb))[:, :, None, None]
        if self.c.scale_shift:
            scale, shift = shift.chunk(2, 1)
            h = self.norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        else:
            h = self.norm(f"{name}.out_layers.0", h + shift)
        h = self.layer(f"{name}.out_layers.3", self.act(h))
        x = sized(x)
        if f"{name}.skip_connection.weight" in self.s:
            x = self.layer(f"{name}.skip_connection", x)
        return (x + h) * self.c.skip_scale

    def heads(self, x, kinds, width):
        """(B, kinds * C, L) -> for each kind, a list of heads (B, width, L)."""
        count = x.shape[1] // (kinds * width)
        rows = x.split(width, 1)
        if self.c.qkv == "kinds":
            return [rows[k * count : (k + 1) * count] for k in range(kinds)]
        return [rows[k::kinds] for k in range(kinds)]

    def attention(self, name, x, kv, mask, only):
        y = self.norm(f"{name}.norm", x.flatten(2))
        width = self.c.head_width or x.shape[1] // self.c.heads
        qkv = self.heads(self.layer(f"{name}.qkv", y), 1 if only else 3, width)
        more = None
        if kv is not None:
            if self.c.encoder_norm:
                kv = self.norm(f"{name}.norm_encoder", kv)
            more = self.heads(self.layer(f"{name}.encoder_kv", kv), 2, width)
        gathered = []
        for i, q in enumerate(qkv[0]):
            if only:
                k, v = more[0][i], more[1][i]
            else:
                k, v = qkv[1][i], qkv[2][i]
                if more is not None:
                    k, v = torch.cat([more[0][i], k], 2), torch.cat([more[1][i], v], 2)
            w = q.mT @ k / math.sqrt(width)
            if mask is not None:
                hidden = torch.cat(
                    [~mask, torch.zeros(len(x), k.shape[2] - mask.shape[1]).bool()], 1
                )
                w = w.masked_fill(hidden[:, None], -math.inf)
            gathered.append(v @ w.softmax(2).mT)
        return x + self.layer(f"{name}.proj_out", torch.cat(gathered, 1)).view_as(x)

    def row(self, name, x, emb, *text, only=False):
        """What a row of the state dict holds: its names say what each part is."""
        for i in range(3):
            part = f"{name}.{i}"
            if f"{part}.qkv.weight" in self.s:
                x = self.attention(part, x, *text, only)
            elif f"{part}.op.weight" in self.s:
                x = self.layer(f"{part}.op", x, stride=2)
            elif f"{part}.conv.weight" in self.s:
                x = self.layer(f"{part}.conv", x.repeat_interleave(2, 2).repeat_interleave(2, 3))
            elif f"{part}.in_layers.0.weight" in self.s:
                x = self.block(part, x, emb, self.resample(name, i))
            elif f"{part}.weight" in self.s:
                x = self.layer(part, x)
        return x

    def resample(self, name, i):
        """With one block a level and two levels: input row 2 halves, the last of row 1 doubles."""
        if not self.c.residual_resampling:
            return None
        if name == "input_blocks.2":
            return "down"
        return "up" if name == "output_blocks.1" and i > 0 else None

    def half(self, x, emb, kv, mask):
        skips = []
        for i, size in ((0, 8), (1, 8), (2, 8), (3, 4)):
            x = self.row(f"input_blocks.{i}", x, emb, kv, mask, only=size in self.c.encoder_only)
            skips.append(x)
        return skips, self.row("middle_block", x, emb, kv, mask, only=4 in self.c.encoder_only)

    def unet(self, x, t, extra=None, kv=None, mask=None):
        emb = self.embedded(t, extra)
        skips, x = self.half(x, emb, kv, mask)
        for i, size in ((0, 4), (1, 4), (2, 8), (3, 8)):
            x = torch.cat([x, skips.pop()], 1)
            x = self.row(f"output_blocks.{i}", x, emb, kv, mask, only=size in self.c.encoder_only)
        return self.layer("out.2", self.act(self.norm("out.0", x)))

    def classifier(self, x, t):
        x = self.half(x, self.embedded(t, None), None, None)[1]
        x = self.act(self.norm("out.0", x)).flatten(2)
        x = torch.cat([x.mean(2, keepdim=True), x], 2) + self.s["out.2.positional_embedding"]
        q, k, v = self.layer("out.2.qkv_proj", x).chunk(3, 1)
        out = []
        for i in range(0, q.shape[1], self.c.head_width):
            rows = slice(i, i + self.c.head_width)
            w = (q[:, rows].mT @ k[:, rows] / math.sqrt(self.c.head_width)).softmax(2)
            out.append(v[:, rows] @ w.mT)
        return self.layer("out.2.c_proj", torch.cat(out, 1))[:, :, 0]


CASES = {
    "adm": {},
    "adm64": {"qkv": "kinds", "attention": (8, 4)},
    "improved": {"scale_shift": False, "residual_resampling": False, "head_width": None,
                 "heads": 4},
    "glide": {"encoder_kv": 12, "attention": (8, 4)},
    "if": {"encoder_kv": 12, "encoder_norm": True, "encoder_only": (8,), "attention": (8, 4),
           "activation": "gelu", "skip_scale": 0.7071, "embedding": 2},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_network_is_a_function_of_its_state_dict(case):
    config = AdmConfig.of({**SMALL, **CASES[case]}, "test")
    network = drawn(AdmUNet(config, 3, 6, 8))
    plain = Plain(config, dict(network.named_parameters()))
    x, t = torch.randn(2, 3, 8, 8).double(), torch.tensor([3.0, 977.0])
    given = [torch.randn(2, config.embedding_width).double()]
    if config.encoder_kv:
        mask = torch.tensor([[True] * 2 + [False] * 3, [True] * 5])
        given += [torch.randn(2, 12, 5).double(), mask]
    ours, theirs = network(x, t, *given), plain.unet(x, t, *given)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert ours.std() > 1e-3
    parameters = list(network.parameters())
    one, other = (torch.autograd.grad(y.square().sum(), parameters) for y in (ours, theirs))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_the_classifier_is_the_encoder_with_attention_pooling():
    config = AdmConfig.of(SMALL, "test")
    network = drawn(AdmEncoder(config, 3, 10, 8))
    x, t = torch.randn(2, 3, 8, 8).double(), torch.tensor([0, 500])
    theirs = Plain(config, dict(network.named_parameters())).classifier(x, t)
    torch.testing.assert_close(network(x, t), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "size", "out", "count"),
    [
        ({"base": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "qkv": "kinds"}, 64, 6,
         295_904_454 - 1000 * 768),
        ({"multipliers": (1, 1, 2, 3, 4), "head_width": None}, 128, 6, 421_529_606 - 1000 * 1024),
        ({}, 256, 6, 552_814_086),
        ({"multipliers": (0.5, 1, 1, 2, 2, 4, 4)}, 512, 6, 558_997_638 - 1000 * 1024),
        ({"base": 128}, 256, None, 54_096_360),
    ],
)  # fmt: skip
def test_the_papers_networks_have_their_sizes(settings, size, out, count):
    config = AdmConfig.of(settings, "test")
    with torch.device("meta"):
        made = AdmUNet(config, 3, out, size) if out else AdmEncoder(config, 3, 1000, size)
    assert sum(p.numel() for p in made.parameters()) == count


def test_a_new_network_is_zero_and_reads_other_sizes():
    network = AdmUNet(AdmConfig.of(SMALL, "test"), 3, 3, 8)
    assert network(torch.randn(1, 3, 8, 12), torch.tensor([5])).abs().max() == 0
    assert network.step == 2


def test_masked_words_and_their_number_do_not_matter():
    config = AdmConfig.of({**SMALL, "encoder_kv": 12}, "test")
    made = AdmNetwork(config, 3, 3, 8, TextShape(7, 12))
    network = drawn(made)
    words, x, t = (
        torch.randn(1, 5, 12).double(),
        torch.randn(1, 3, 8, 8).double(),
        torch.tensor([9]),
    )
    sentence = torch.randn(1, 7).double()

    def of(words, sentence=sentence, kept=3):
        mask = torch.arange(words.shape[1])[None] < kept
        text = TextFeatures.of(sentence=sentence, words=words, mask=mask)
        return network(x, t, network.condition(text))

    shown = of(words)
    torch.testing.assert_close(of(words[:, :3]), shown)
    assert (of(words, kept=4) - shown).abs().max() > 1e-4
    assert (of(words, sentence + 1) - shown).abs().max() > 1e-4


def test_classes_are_read_by_name():
    network = AdmNetwork(AdmConfig.of(SMALL, "test"), 3, 3, 8, TextShape(1, 1), ("cat", "dog"))
    text = TextFeatures.of(sentence=torch.zeros(2, 1), captions=("dog", "cat"))
    emb = next(iter(network.condition(text).extras.values()))
    torch.testing.assert_close(emb, network.label_emb.weight[[1, 0]])
    with pytest.raises(UserError, match="caption 'a dog': these weights know classes only"):
        class_numbers(["a dog"], ("cat", "dog"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": 15}, "must be even"),
        ({"blocks": (1, 2, 3)}, "blocks has 3 levels, multipliers 2"),
        ({"encoder_norm": True}, "need encoder_kv above 0"),
        ({"groups": 32}, "16 channels cannot be divided into 32 groups"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        AdmConfig.of({**SMALL, **settings}, "test")
    with pytest.raises(UserError, match="32 channels cannot be divided into heads"):
        AdmUNet(AdmConfig.of({**SMALL, "head_width": 12}, "test"), 3, 3, 8)
