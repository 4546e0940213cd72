"""The VAEs: VDVAE's blocks against plain functions of its weights, the bound against its parts, and
that losses, likelihoods and samples hang together."""

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from t2i.core.engine.local import LocalEngine
from t2i.core.errors import UserError
from t2i.core.interfaces.likelihood import bits_per_dim
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.models.importing import import_weights
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.variational.bound import kl_by_map
from t2i.plugins.models.vae import weights
from t2i.plugins.models.vae.blocks import places
from t2i.plugins.models.vae.config import VAEConfig, ladder
from t2i.plugins.models.vae.likelihood import vae_likelihood
from t2i.plugins.models.vae.networks import VAEGenerator
from t2i.plugins.models.vae.training import VAETrainer

TEXT = TextShape(5, 6)
DEEP = {
    "width": 12, "z": 2, "bottleneck": 0.5, "encoder_blocks": "8x2,8d2,4x1,4d4,1x1",
    "decoder_blocks": "1x2,4m1,4,8m4,8x1",
}  # fmt: skip
MAP = {"text_map": 4, "map_hops": 1, "map_heads": 2, "outline": 0.5}
SMALL = {"image_size": 8, "network": "deep", "deep": DEEP, "output": "mixture", "mixtures": 3}
PLAIN = {"image_size": 8, "plain": {"z": 3, "width": 4, "prior": 6}, "text": MAP}
F64 = torch.float64


def shaken(generator, seed=0):
    """All weights drawn at random: layers that start at 0 hide errors."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in generator.parameters():
            p.copy_(0.15 * torch.randn_like(p))
    return generator


def made(dtype=F64, **settings):
    return shaken(VAEGenerator(VAEConfig(**settings), TEXT)).to(dtype)


def text(n=3, dtype=F64):
    torch.manual_seed(7)
    words = torch.randn(n, 4, TEXT.words, dtype=dtype)
    return TextFeatures(
        torch.randn(n, TEXT.sentence, dtype=dtype), words, torch.ones(n, 4, dtype=torch.bool)
    )


def real(tensor):
    return tensor.double() if tensor.is_floating_point() else tensor


def noise(n=3, step=0):
    return StepNoise(0, step, 0, n, n, "cpu")


def images(n=3):
    levels = torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(5))
    return levels.to(F64) / 127.5 - 1


# --- VDVAE, written down as functions of the authors' state dict ----------------------------------


def block(state, name, x, size):
    pad = 1 if size > 2 else 0
    for number in (1, 2, 3, 4):
        x = F.conv2d(
            F.gelu(x), state[f"{name}.c{number}.weight"], state[f"{name}.c{number}.bias"],
            padding=pad if number in (2, 3) else 0,
        )  # fmt: skip
    return x


def conv(state, name, x, pad=0):
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=pad)


def authors(state, x, eps, z, seen=True, t=1.0):
    """KL of each block, and the decoder's features: of images x, or from the prior."""
    acts = {}
    if seen:
        h = conv(state, "encoder.in_conv", (x + 1) * 127.5 / 127.5 - 1, pad=1)
        acts[h.shape[2]] = h
        for i, (size, down) in enumerate([(8, 1), (8, 1), (8, 2), (4, 1), (4, 4), (1, 1)]):
            h = F.avg_pool2d(h + block(state, f"encoder.enc_blocks.{i}", h, size), down)
            acts[h.shape[2]] = h
    xs = {size: state[f"decoder.bias_xs.{i}"] for i, size in enumerate((1, 4, 8))}
    kls = []
    for i, (size, mixin) in enumerate([(1, 0), (1, 0), (4, 1), (4, 0), (8, 4), (8, 0)]):
        name = f"decoder.dec_blocks.{i}"
        h = xs[size].expand(len(eps[0]), -1, -1, -1)
        if mixin:
            h = h + xs[mixin].repeat_interleave(size // mixin, 2).repeat_interleave(
                size // mixin, 3
            )
        prior = block(state, f"{name}.prior", h, size)
        pm, ps, more = prior[:, :z], prior[:, z : 2 * z], prior[:, 2 * z :]
        m, s = pm, ps + math.log(t)
        if seen:
            q = block(state, f"{name}.enc", torch.cat([h, acts[size]], 1), size)
            m, s = q[:, :z], q[:, z:]
            kl = -0.5 + ps - s + 0.5 * (s.exp() ** 2 + (m - pm) ** 2) / ps.exp() ** 2
            kls.append(kl.sum((1, 2, 3)))
        h = h + more + conv(state, f"{name}.z_proj", m + s.exp() * eps[i])
        xs[size] = h + block(state, f"{name}.resnet", h, size)
    return kls, xs[8] * state["decoder.gain"] + state["decoder.bias"]


def authors_state(generator):
    """The generator's weights under the authors' names, by a table of its own."""
    state, sizes = {}, ["1", "4", "8"]
    for name, tensor in generator.state_dict().items():
        part = name.split(".")
        if name.startswith("network.biases."):
            key = f"decoder.bias_xs.{sizes.index(part[2])}"
        elif name.startswith("network.encoder.stem"):
            key = f"encoder.in_conv.{part[-1]}"
        elif name.startswith("network.encoder.blocks"):
            key = ".".join(["encoder", "enc_blocks", *part[3:]])
        elif name.startswith("network.blocks"):
            inner = {"posterior": "enc", "project": "z_proj"}.get(part[3], part[3])
            key = ".".join(["decoder", "dec_blocks", part[2], inner, *part[4:]])
        elif name in ("network.gain", "network.bias"):
            key = f"decoder.{part[1]}"
        elif name.startswith("output."):
            key = f"decoder.out_net.out_conv.{part[-1]}"
        else:
            continue  # the text's, which is ours
        state[key] = tensor.clone()
    return state


def silent(generator):
    """Without what the text adds."""
    with torch.no_grad():
        for name, p in generator.named_parameters():
            if "sentences" in name:
                p.zero_()
    return generator


def test_the_hierarchy_is_vdvaes():
    generator = silent(made(**SMALL))
    state = authors_state(generator)
    draws = noise()
    eps = [
        draws.normal(f"z{i}", 0, shape).to(F64) for i, shape in enumerate(generator.network.shapes)
    ]
    x = images()
    seen = generator.infer(x, text(), draws)
    kls, features = authors(state, x, eps, z=2)
    torch.testing.assert_close(kl_by_map(seen.latents).sum(1), torch.stack(kls).sum(0))
    expected = generator.output.log_prob(features, x)
    torch.testing.assert_close(seen.log_prob, expected)
    _, features = authors(state, x, eps, z=2, seen=False, t=0.7)
    torch.testing.assert_close(generator.network.imagine(eps, text(), 0.7), features)


def test_its_weights_are_imported(tmp_path):
    """A file of the authors gives the same samples, without text."""
    generator = silent(made(torch.float32, **SMALL, sample_output=True))
    state = authors_state(generator)
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "ema.th")
    settings = VAEConfig(**{**SMALL, "mixtures": 10, "sample_output": True})
    config = replace(resolve_config("vae", preset="deep"), settings=settings)
    model = weights.load(config, [tmp_path / "ema.th"])
    assert (model.config.encoder.name, model.config.settings.mixtures) == ("none", 3)
    eps = noise().normal("z", 0, generator.noise_shape)
    captions = model.text_encoder.encode(["a", "b", "c"])
    with torch.no_grad():
        made_here = generator.double()(eps.double(), text())
        imported = model.generator.double()(eps.double(), captions.map(real))
    torch.testing.assert_close(imported, made_here)


def test_text_begins_without_influence_in_the_papers_presets_and_with_it_in_ours():
    def influence(**deep):
        torch.manual_seed(0)
        network = VAEGenerator(VAEConfig(**{**SMALL, "deep": {**DEEP, **deep}}), TEXT).network
        captions = text(dtype=torch.float32)
        a, b = (network.started(t)[4] for t in (captions, captions[[2, 1, 0]]))
        return float((a - b).detach().abs().max())

    assert influence() == 0
    assert influence(text_gain=1.0) > 0.1


def test_blocks_above_a_size_may_have_no_latents():
    generator = made(**{**SMALL, "deep": {**DEEP, "latents": 4}})
    assert generator.network.shapes == [(2, 1, 1)] * 2 + [(2, 4, 4)] * 2
    names = [name for name, _ in generator.named_parameters()]
    assert "network.blocks.3.prior.c1.weight" in names
    assert "network.blocks.4.prior.c1.weight" not in names
    assert len(generator.infer(images(), text(), noise()).latents) == 4


def test_strings_of_blocks():
    assert places("1x2,4m1,8d2,8") == (
        (1, None, None), (1, None, None), (4, 1, None), (8, None, 2), (8, None, None),
    )  # fmt: skip
    for size in (32, 64, 256):
        VAEConfig(image_size=size, network="deep", deep=ladder(size))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deep": {"encoder_blocks": "8x2,9q1"}}, "describes no blocks"),
        ({"deep": {"encoder_blocks": "8x9999"}}, "more than"),
        ({"deep": {"encoder_blocks": "4x1"}}, "a block of 4 gets a map of 8x8"),
        ({"deep": {"encoder_blocks": "8d3"}}, "cannot be divided"),
        ({"deep": {"decoder_blocks": "2x1,8m2"}}, "no map of 2x2"),
        ({"deep": {"decoder_blocks": "8m4"}}, "needs a map of 4"),
        ({"deep": {"decoder_blocks": "1x1,4m1"}}, "must be of 8"),
        ({"network": "plain", "image_size": 12}, "doubles 4x4"),
        ({"autoencoder": {}}, "set autoencoder.weights"),
        ({"autoencoder": {"weights": "x"}, "network": "plain"}, "latents are no 8-bit pixels"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    deep = {**DEEP, **settings.get("deep", {})}
    with pytest.raises(ValidationError, match=message):
        VAEConfig(**{**SMALL, **settings, "deep": deep})


# --- bound, training, sampling --------------------------------------------------------------------


def batch_of(x):
    def encode(captions):
        return text(len(captions), torch.float32)

    return Batch(
        images=x, captions=("a",) * len(x), keys=("k",) * len(x), noise=noise(len(x)), encode=encode
    )


class Encoder(TextEncoder):
    """Stands for a frozen text encoder."""

    def __init__(self):
        super().__init__()
        self.shape = TEXT

    def encode(self, captions):
        return text(len(captions), torch.float32)


class Recorder(LocalEngine):
    """Keeps losses and trains nothing."""

    def __init__(self, trainer, settings, progress):
        super().__init__(trainer, settings, progress=progress, updates=False)
        self.seen = {}

    def update(self, name, loss):
        self.seen[name] = loss


@pytest.mark.parametrize("output", ["gaussian", "logistic", "mixture"])
@pytest.mark.parametrize("network", ["plain", "deep"])
def test_the_loss_is_the_bound_per_dimension(network, output):
    """Sums over dimensions, beta, warm-up and free bits; and the likelihood is the same bound."""
    config = VAEConfig(**{
        **SMALL, **PLAIN, "network": network, "output": output, "beta": 2.0, "kl_warmup": 0.5,
        "free_bits": 0.4, "text": MAP,
    })  # fmt: skip
    generator = shaken(VAEGenerator(config, TEXT))
    trainer = VAETrainer(config, Networks(generator, Encoder()))
    batch = batch_of(images().float())
    engine = Recorder(trainer, config, progress=0.25)
    losses = trainer.step(batch, engine)
    x = trainer.clean(batch)
    conditioned = generator.condition(batch.text)
    seen = generator.infer(x, conditioned, batch.noise)
    maps, dims = kl_by_map(seen.latents), 3 * 8 * 8
    floor = torch.stack([m.mean().clamp(min=0.4) for m in maps.unbind(1)]).sum()
    outline = (generator.network.outline(conditioned) - x).square().mean()
    expected = (-seen.log_prob.mean() + 1.0 * floor) / dims + 0.5 * outline
    torch.testing.assert_close(engine.seen["vae"], expected)
    torch.testing.assert_close(losses["bound"], (maps.sum(1) - seen.log_prob).mean() / dims)
    engine.seen["vae"].backward()
    trained = [p for module in trainer.modules.values() for p in module.parameters()]
    assert all(p.grad is not None for p in trained)
    likelihood = vae_likelihood(generator, {"samples": 2})
    assert likelihood.kind == "bound"
    assert likelihood.protocol() == {
        "dequantisation": "uniform" if output == "gaussian" else "none", "samples": 2,
    }  # fmt: skip
    levels = ((images() + 1) * 127.5).round().byte()
    nats = likelihood.nats(levels, conditioned, noise())
    assert nats.dtype == F64
    alone = likelihood.nats(levels[:1], conditioned[:1], PromptRows(0))
    torch.testing.assert_close(nats[:1], alone, rtol=1e-5, atol=1e-3)
    assert bits_per_dim(nats, dims).min() > 0


def PromptRows(row):  # noqa: N802
    """Noise of one row of `noise()`."""

    class Row:
        def __len__(self):
            return 1

        def normal(self, *key):
            return noise().normal(*key)[row : row + 1]

        def uniform(self, *key):
            return noise().uniform(*key)[row : row + 1]

    return Row()


def test_a_model_that_knows_nothing_needs_the_bit_depth():
    """Without weights the latents say nothing, and a Gaussian far wider than the images gives each
    level the density at 0: the bits are those of it, log2(128 sigma sqrt(2 pi))."""
    generator = made(torch.float32, **{**PLAIN, "text": {}})
    with torch.no_grad():
        for p in generator.parameters():
            p.zero_()
        generator.output.log_sigma.fill_(4.0)
    levels = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    nats = vae_likelihood(generator, {}).nats(levels, text(1, torch.float32), PromptRows(0))
    expected = 7 + (4.0 + 0.5 * math.log(2 * math.pi)) / math.log(2)
    assert float(bits_per_dim(nats, 192)) == pytest.approx(expected, abs=1e-3)


def test_a_likelihood_of_latents_is_none_and_wrong_sizes_are_refused():
    generator = made(**PLAIN)
    with pytest.raises(UserError, match="8x8"):
        vae_likelihood(generator, {}).nats(
            torch.zeros(1, 3, 16, 16, dtype=torch.uint8), text(1), noise(1)
        )
    generator.autoencoder = torch.nn.Identity()
    assert vae_likelihood(generator, {}) is None


@pytest.mark.parametrize("network", ["plain", "deep"])
def test_samples_are_a_function_of_noise_and_text(network):
    settings = {**SMALL, **PLAIN, "network": network, "sample_output": True, "temperature": 0.5}
    generator = made(torch.float32, **settings).eval()
    prompt = PromptNoise(0, tuple((i, 0) for i in range(3)))
    eps = prompt.normal("z", 0, generator.noise_shape)
    captions = generator.condition(text(3, torch.float32))
    with torch.no_grad():
        out = generator(eps, captions)
        alone = generator(eps[1:2], captions[1:2])
    assert out.shape == (3, 3, 8, 8)
    assert float(out.abs().max()) <= 1
    torch.testing.assert_close(out[1:2], alone, rtol=1e-4, atol=1e-4)
    assert float((out[0] - out[1]).abs().max()) > 0


def test_the_plain_posterior_and_prior_read_the_text():
    generator = made(**PLAIN)
    a = generator.infer(images(), generator.condition(text()), noise()).latents[0]
    b = generator.infer(images(), generator.condition(text()[[1, 2, 0]]), noise()).latents[0]
    for first, second in ((a.q, b.q), (a.p, b.p)):
        assert float((first.mean - second.mean).abs().max()) > 1e-3


def test_presets_have_the_papers_sizes():
    def count(name):
        settings = VAEConfig.of(VAEConfig.presets()[name].settings, name)
        with torch.device("meta"):
            generator = VAEGenerator(settings, TextShape(1, 1))
        ours = sum(p.numel() for n, p in generator.network.named_parameters() if "sentences" in n)
        return sum(p.numel() for p in generator.parameters()) - ours

    assert count("deep") == pytest.approx(39e6, rel=0.02)
    assert count("imagenet32") == pytest.approx(119e6, rel=0.02)
    assert count("imagenet64") == pytest.approx(125e6, rel=0.02)


def test_import_refuses_other_presets(tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / "x.th")
    with pytest.raises(UserError, match="--preset deep"):
        import_weights("vae", [tmp_path / "x.th"], tmp_path / "run", preset="plain")
    with pytest.raises(UserError, match="is missing"):
        import_weights("vae", [tmp_path / "x.th"], tmp_path / "run", preset="deep")
    assert not (tmp_path / "run").exists()
