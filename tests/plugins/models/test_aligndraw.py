"""alignDRAW: one drawing against NumPy written from the paper and its code's equations, the order
of the words, and what the optional parts do."""

import numpy as np
import pytest
import torch

from t2i.core.engine.local import LocalEngine
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.plugins.common.variational.bound import kl_by_map
from t2i.plugins.models.aligndraw.attention import filters
from t2i.plugins.models.aligndraw.config import AlignDRAWConfig
from t2i.plugins.models.aligndraw.networks import AlignDRAWGenerator
from t2i.plugins.models.aligndraw.optimizer import RMSprop
from t2i.plugins.models.aligndraw.training import (
    DrawingTrainer,
    SharpeningTrainer,
    pixel_loss,
    stages,
)

TEXT = TextShape(5, 6)
SMALL = {
    "image_size": 8, "draw_steps": 3, "language": 4, "align": 5, "hidden": 7, "z_dim": 2,
    "read": 3, "write": 4, "batch_size": 2,
}  # fmt: skip
F64 = torch.float64


def made(dtype=F64, **settings):
    torch.manual_seed(0)
    generator = AlignDRAWGenerator(AlignDRAWConfig(**{**SMALL, **settings}), TEXT)
    with torch.no_grad():
        for p in generator.parameters():
            p.copy_(0.4 * torch.randn_like(p))
    return generator.to(dtype)


def text(dtype=F64, lengths=(4, 4)):
    torch.manual_seed(7)
    words = torch.randn(len(lengths), max(lengths), TEXT.words, dtype=dtype)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    sentence = torch.randn(len(lengths), TEXT.sentence, dtype=dtype)
    return TextFeatures(sentence, words * mask[..., None], mask)


def images(dtype=F64, n=2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(2)).to(dtype)


# --- NumPy, one image at a time -------------------------------------------------------------------


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def lstm(w, name, inputs, h, cell):
    gates = w[f"{name}.hidden.weight"] @ h + w[f"{name}.hidden.bias"]
    for number, value in enumerate(inputs):
        gates = gates + w[f"{name}.inputs.{number}.weight"] @ value
    i, f, g, o = np.split(gates, 4)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


def grid(parameters, n, side):
    x, y, log_step, log_variance, log_gamma = parameters
    step = (side - 1) / (n - 1) * np.exp(log_step)

    def bank(centre):
        rows = np.zeros((n, side))
        for i in range(n):
            mean = (side + 1) / 2 * (centre + 1) + step * (i - n // 2 - 0.5)
            for a in range(side):
                rows[i, a] = np.exp(-((a - mean) ** 2) / 2 / np.exp(log_variance))
        return rows / (rows.sum(1, keepdims=True) + 1e-4)

    return bank(y), bank(x), np.exp(log_gamma)


def affine(w, name, value):
    return w[f"{name}.weight"] @ value + w.get(f"{name}.bias", 0)


def read_by(w, name, words):
    """Outputs of one of the two LSTMs that read a caption."""
    h, cell, rows = w["reader.start"][0], np.zeros(4), []
    for word in words:
        h, cell = lstm(w, name, [word], h, cell)
        rows.append(h)
    return rows


def drawn(w, language, x, eps, prior_only=False):
    """Canvas and KL of one image; `language` are the vectors of its words."""
    canvas = w["canvas"][0]
    h_enc, c_enc = w["encoder_start"][0], np.zeros(7)
    h, c_dec = w["decoder_start"][0], np.zeros(7)
    m_p, s_p, kl = np.zeros(2), np.zeros(2), 0.0
    for step in range(len(eps)):
        m, s = m_p, s_p
        if not prior_only:
            rows, columns, gamma = grid(affine(w, "reading", h), 3, 8)
            seen = [
                gamma * (rows @ plane @ columns.T).ravel() for plane in [*x, *(x - sigmoid(canvas))]
            ]
            h_enc, c_enc = lstm(w, "encoder", [np.concatenate([*seen, h])], h_enc, c_enc)
            m, s = affine(w, "mean", h_enc), 0.5 * affine(w, "log_scale", h_enc)
            kl += (s_p - s - 0.5 + (np.exp(2 * s) + (m - m_p) ** 2) / (2 * np.exp(2 * s_p))).sum()
        z = m + np.exp(s) * eps[step]
        scores = np.array([
            w["score.weight"][0] @ np.tanh(w["keys.weight"] @ each + affine(w, "query", h))
            for each in language
        ])  # fmt: skip
        weights = np.exp(scores) / np.exp(scores).sum()
        h, c_dec = lstm(w, "decoder", [z, weights @ language], h, c_dec)
        rows, columns, gamma = grid(affine(w, "writing", h), 4, 8)
        window = affine(w, "window", h).reshape(3, 4, 4)
        canvas = canvas + np.stack([rows.T @ plane @ columns for plane in window]) / gamma
        m_p, s_p = np.split(np.tanh(affine(w, "prior", h)), 2)
    return canvas, kl


def weights_of(generator):
    return {name: t.detach().numpy() for name, t in generator.drawing.state_dict().items()}


@pytest.mark.parametrize("order", ["reversed", "authors"])
def test_a_drawing_is_the_authors(order):
    generator, t, x = made(order=order), text(), images()
    draws = StepNoise(0, 0, 0, 2, 2, "cpu")
    eps = torch.stack([draws.normal("z", step, (2,)) for step in range(3)], 1).to(F64)
    trainer = DrawingTrainer(generator.config, Networks(generator, Encoder()))
    read = trainer.read(t)
    canvas, latents = generator.drawing.infer(x, read, lambda step: eps[:, step])
    kl = kl_by_map(latents).sum(1)
    new = generator.drawing.imagine(eps, read)
    w, words = weights_of(generator), t.words.numpy()
    for row in range(2):
        if order == "reversed":  # the vector of a word is what both LSTMs gave at it
            second = read_by(w, "reader.second", words[row][::-1])[::-1]
        else:
            second = read_by(w, "reader.second", words[1 - row])
        language = np.concatenate([read_by(w, "reader.first", words[row]), second], axis=1)
        expected, divergence = drawn(w, language, x[row].numpy(), eps[row].numpy())
        np.testing.assert_allclose(canvas[row].detach().numpy(), expected, rtol=1e-8, atol=1e-10)
        assert float(kl[row].detach()) == pytest.approx(divergence, rel=1e-9)
        expected, _ = drawn(w, language, None, eps[row].numpy(), prior_only=True)
        np.testing.assert_allclose(new[row].detach().numpy(), expected, rtol=1e-8, atol=1e-10)


def test_padding_changes_nothing():
    """A caption gives the same image alone and beside a longer one."""
    generator = made().eval()
    both = text(lengths=(3, 6))
    alone = TextFeatures(both.sentence[:1], both.words[:1, :3], both.mask[:1, :3])
    eps = torch.randn(2, *generator.noise_shape, dtype=F64)
    with torch.no_grad():
        together = generator(eps, generator.condition(both))
        torch.testing.assert_close(generator(eps[:1], generator.condition(alone)), together[:1])


def test_filters_read_what_they_cover():
    """A grid of step 1 and a small variance copies pixels; half a step off, as the authors'."""
    parameters = torch.tensor([[0.0, 0.0, np.log(1 / (7 / 2)), -6.0, 0.0]], dtype=F64)
    bank = filters(parameters, 3, 8)
    # The centre is 4.5; the places are -1.5, -0.5 and 0.5 off.
    x = images(n=1)
    torch.testing.assert_close(bank.read(x), x[:, :, 3:6, 3:6], rtol=1e-3, atol=1e-3)
    window = torch.ones(1, 1, 3, 3, dtype=F64)
    assert float(bank.write(window)[0, 0, 3:6, 3:6].min()) > 0.99
    assert float(bank.write(window).sum()) == pytest.approx(9, rel=1e-3)


class Encoder(TextEncoder):
    """Stands for a frozen text encoder."""

    def __init__(self):
        super().__init__()
        self.shape = TEXT

    def encode(self, captions):
        return text(torch.float32, (4,) * len(captions))


class Recorder(LocalEngine):
    """Keeps losses and trains nothing."""

    def __init__(self, trainer, settings, progress=0.0):
        super().__init__(trainer, settings, progress=progress, updates=False)
        self.losses = {}

    def update(self, name, loss):
        self.losses[name] = loss


def batch():
    return Batch(
        2 * images(torch.float32) - 1, ("a", "b"), ("k",) * 2, StepNoise(0, 0, 0, 2, 2, "cpu"),
        Encoder().encode,
    )  # fmt: skip


def test_the_loss_is_summed_per_image():
    generator = made(
        torch.float32, beta=0.5, kl_warmup=0.4, canvas="sentence", decode_sentence=True
    )
    trainer = DrawingTrainer(generator.config, Networks(generator, Encoder()))
    engine = Recorder(trainer, generator.config, progress=0.1)
    losses = trainer.step(batch(), engine)
    torch.testing.assert_close(engine.losses["drawing"], losses["pixels"] + 0.125 * losses["kl"])
    x, canvas = images(), torch.randn(2, 3, 8, 8, dtype=F64)
    p = canvas.sigmoid()
    expected = -(x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3)).mean()
    torch.testing.assert_close(pixel_loss(canvas, x), expected)
    engine.losses["drawing"].backward()
    assert all(p.grad is not None for p in generator.drawing.parameters())


def test_the_sharpening_network_is_used_once_its_stage_has_begun():
    generator = made(torch.float32, sharpen={"share": 0.3, "width": 4, "df": 4, "pixels": 1.0})
    eps = torch.randn(2, *generator.noise_shape)
    captions = generator.condition(text(torch.float32))
    before = generator(eps, captions)
    canvas = generator.drawing.imagine(eps, captions)
    torch.testing.assert_close(before, 2 * canvas.sigmoid() - 1)
    names = [stage.name for stage in stages(generator.config, Encoder())]
    assert names == ["drawing", "sharpening"]
    trainer = SharpeningTrainer(generator.config, Networks(generator, Encoder()))
    engine = Recorder(trainer, generator.config)
    losses = trainer.step(batch(), engine)
    assert engine.losses.keys() == {"discriminator", "sharpener"}
    torch.testing.assert_close(engine.losses["sharpener"], losses["pixels"] + losses["generator"])
    after = generator(eps, captions)
    assert float((after - before).detach().abs().max()) > 1e-3
    assert float(after.detach().abs().max()) <= 1


def test_rmsprop_is_the_authors():
    torch.manual_seed(0)
    w, square = torch.nn.Parameter(torch.randn(3, 2, dtype=F64)), torch.zeros(3, 2, dtype=F64)
    expected = w.detach().clone()
    optimizer = RMSprop([{"params": [w]}], 1e-2, clip=1.0)
    for size in (0.1, 30.0):
        gradient = torch.randn(3, 2, dtype=F64) * size
        w.grad = gradient.clone()
        optimizer.step()
        gradient = gradient * min(1.0, 1.0 / float(gradient.norm()))
        square = 0.9 * square + 0.1 * gradient**2
        expected -= 1e-2 * gradient / (square + 1e-6).sqrt()
    torch.testing.assert_close(w.detach(), expected)


def test_the_papers_size():
    """33.1M parameters with the authors' word tables, 7.2M without, and the initial states."""
    config = AlignDRAWConfig.of(AlignDRAWConfig.presets()["coco"].settings, "coco")
    with torch.device("meta"):
        generator = AlignDRAWGenerator(config, TextShape(1, 25_323))
    total = sum(p.numel() for p in generator.parameters())
    tables = 2 * 25_323 * 4 * 128
    assert total == pytest.approx(33.1e6, rel=0.01)
    assert total - tables == pytest.approx(7.2e6, rel=0.01)
