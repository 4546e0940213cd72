"""StackGAN-v2: the authors' geometry and networks by their own names, one step's mathematics and
economy."""

import shutil

import pytest
import torch
from torch.nn import functional as F

from t2i import load
from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.interfaces.trainer import Networks
from t2i.core.io.tensors import load_tensors
from t2i.core.models.weights import load_state
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run
from t2i.plugins.common.gan.conditioning.augmentation import kl_loss
from t2i.plugins.common.gan.losses.colour import colour_consistency
from t2i.plugins.common.gan.trees.discriminator import Discriminator
from t2i.plugins.common.gan.trees.weights import discriminator_state
from t2i.plugins.models.stackganv2 import weights
from t2i.plugins.models.stackganv2.config import StackGANv2Config
from t2i.plugins.models.stackganv2.networks import build, joined
from t2i.plugins.models.stackganv2.training import GANTrainer, discriminator_loss, stages
from tests.plugins.models import trees

TINY = {
    "image_size": 32,
    "gf": 8,
    "df": 4,
    "residual_blocks": 1,
    "z_dim": 5,
    "c_dim": 3,
    "batch_size": 4,
}
SMALL = StackGANv2Config(**TINY)


def count(module):
    return sum(p.numel() for p in module.parameters())


# --- networks -------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_authors_modules():
    config = resolve_config("stackganv2", preset="cub", data_needed=False).settings
    with torch.device("meta"):
        made = build(config, TextShape(1024, 1024), None)
        judges = [Discriminator(config, i, 128, condition_first=True) for i in range(3)]
    assert count(made.network) == 21_239_696
    assert [count(d) for d in judges] == [5_723_906, 18_834_178, 71_269_122]
    assert config.sizes == [64, 128, 256]
    assert made.noise_shape == (228,)


@pytest.mark.parametrize("size", [3, 4, 9])
def test_a_vector_joined_at_each_position_costs_one_small_map_and_equals_the_whole(size):
    torch.manual_seed(0)
    w, c = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 5, 3, 3), (2, 3)))
    h = torch.randn(2, 2, size, size, dtype=torch.float64, requires_grad=True)
    w.requires_grad_()
    c.requires_grad_()
    whole = torch.cat([c[..., None, None].repeat(1, 1, size, size), h], 1)
    plain = F.conv2d(whole, w, padding=1)
    torch.testing.assert_close(joined(w, c, h), plain)
    weight, given = torch.randn_like(plain), [c, h, w]
    ours = torch.autograd.grad((weight * joined(w, c, h)).sum(), given)
    torch.testing.assert_close(ours, torch.autograd.grad((weight * plain).sum(), given))


@pytest.mark.parametrize(("size", "scales"), [(16, 2), (32, 3), (32, 1)])
def test_every_size_fits_its_networks(size, scales):
    config = StackGANv2Config(**{**TINY, "image_size": size, "scales": scales})
    drawn = build(config, trees.TEXT, None).network(torch.randn(2, 8), trees.text(2))
    sides = [size >> i for i in reversed(range(scales))]
    assert [image.shape for image in drawn.images] == [(2, 3, side, side) for side in sides]
    for scale, image in enumerate(drawn.images):
        d = Discriminator(config, scale, 3, condition_first=True)
        assert d.conditional(d(image), drawn.mean).shape == d.unconditional(d(image)).shape == (2,)


# --- the authors' file ----------------------------------------------------------------------------


def authors_shapes(gf=8, sentence=16, z=100, c=128, r=2):
    shapes = trees.first_shapes(gf, sentence, z, c)
    for n in (2, 3):
        width = gf >> (n - 2)
        shapes[f"h_net{n}.jointConv.0.weight"] = (2 * width, c + width, 3, 3)
        shapes |= trees.norm_shapes(f"h_net{n}.jointConv.1", 2 * width)
        for i in range(r):
            shapes |= trees.residual_shapes(f"h_net{n}.residual.{i}", width)
        shapes |= trees.up_shapes(f"h_net{n}.upsample", width, width // 2)
    return shapes | {f"img_net{n}.img.0.weight": (3, gf >> (n - 1), 3, 3) for n in (1, 2, 3)}


def authors_images(state, sentence, z, eps):
    c, _ = trees.condition(state, sentence, eps)
    h = trees.first(state, c, z)
    images = [trees.rgb(state, 1, h)]
    for n in (2, 3):
        tiled = c[..., None, None].repeat(1, 1, *h.shape[2:])
        h = trees.conv(state, f"h_net{n}.jointConv.0", torch.cat([tiled, h], 1), padding=1)
        h = trees.gate(trees.norm(state, f"h_net{n}.jointConv.1", h))
        h = trees.up(state, f"h_net{n}.upsample", trees.residual(state, f"h_net{n}.residual", h))
        images.append(trees.rgb(state, n, h))
    return images


def test_the_authors_generator_draws_the_authors_images(tmp_path):
    state = trees.random_tensors(authors_shapes())
    path = tmp_path / "netG_210000.pth"
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    sets = ["gf=8", "encoder.name=words", "encoder.width=16", "encoder.heads=2"]
    config = resolve_config("stackganv2", preset="cub", sets=sets, data_needed=False)
    model = weights.load(config, [path])
    sentence, z, eps = torch.randn(2, 16), torch.randn(2, 100), torch.randn(2, 128)
    told = TextFeatures.of(sentence=sentence)
    with torch.no_grad():
        drawn = model.generator.eval().network(torch.cat([z, eps], 1), told)
        theirs = authors_images(state, sentence, z, eps)
    assert theirs[-1].std() > 0.05
    for ours, image in zip(drawn.images, theirs, strict=True):
        torch.testing.assert_close(ours, image, atol=1e-4, rtol=0)
    with pytest.raises(UserError, match=r"one file of weights is expected.*2 were given"):
        weights.load(config, [path, path])
    torch.save({"h_net1.fc.0.weight": torch.zeros(1)}, path)  # a model without text: dogs, cats
    with pytest.raises(UserError, match=r"has no .ca_net\.fc\.weight.*birds"):
        weights.load(config, [path])


@pytest.mark.parametrize(("scale", "size"), [(0, 64), (1, 128), (2, 256)])
def test_the_authors_discriminators_give_the_authors_scores(scale, size):
    df, c = 2, 3
    shapes = {"img_code_s16.0.weight": (df, 3, 4, 4)}
    layers = [("img_code_s16.0", None, 2)]
    widths = {2: 1, 5: 2, 8: 4}
    for at, n in widths.items():
        layers.append((f"img_code_s16.{at}", f"img_code_s16.{at + 1}", 2))
        shapes[f"img_code_s16.{at}.weight"] = (2 * n * df, n * df, 4, 4)
        shapes |= trees.norm_shapes(f"img_code_s16.{at + 1}", 2 * n * df)
    later = [[], [("32", 16, 8, 4), ("32_1", 8, 16, 3)],
             [("32", 16, 8, 4), ("64", 32, 16, 4), ("64_1", 16, 32, 3), ("64_2", 8, 16, 3)]]  # fmt: skip  # noqa: E501
    for name, c_out, c_in, kernel in later[scale]:
        layers.append((f"img_code_s{name}.0", f"img_code_s{name}.1", 2 if kernel == 4 else 1))
        shapes[f"img_code_s{name}.0.weight"] = (c_out * df, c_in * df, kernel, kernel)
        shapes |= trees.norm_shapes(f"img_code_s{name}.1", c_out * df)
    shapes["jointConv.0.weight"] = (8 * df, 8 * df + c, 3, 3)
    shapes |= trees.norm_shapes("jointConv.1", 8 * df)
    for head in ("logits", "uncond_logits"):
        shapes |= {f"{head}.0.weight": (1, 8 * df, 4, 4), f"{head}.0.bias": (1,)}
    state = trees.random_tensors(shapes)
    d = Discriminator(StackGANv2Config(image_size=256, df=df), scale, c, condition_first=True)
    counters = {n: t for n, t in d.state_dict().items() if n.endswith("num_batches_tracked")}
    load_state(d, {**discriminator_state(state), **counters}, "netD")
    d.eval()
    x, mu = torch.rand(3, 3, size, size) * 2 - 1, torch.randn(3, c)
    with torch.no_grad():
        ours = d.conditional(d(x), mu), d.unconditional(d(x))
        h = x
        for name, bn, stride in layers:
            h = trees.conv(state, name, h, stride=stride, padding=1)
            h = F.leaky_relu(trees.norm(state, bn, h) if bn else h, 0.2)
        both = torch.cat([mu[..., None, None].repeat(1, 1, 4, 4), h], 1)
        both = trees.conv(state, "jointConv.0", both, padding=1)
        both = F.leaky_relu(trees.norm(state, "jointConv.1", both), 0.2)
        theirs = trees.conv(state, "logits.0", both), trees.conv(state, "uncond_logits.0", h)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.flatten(), atol=1e-4, rtol=1e-4)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("u", [0.0, 0.7])
def test_discriminator_loss_term_by_term(u):
    """Wrong images are real ones in another order: their encoder pass would give the same."""
    torch.manual_seed(0)
    d = Discriminator(SMALL, 1, 3, condition_first=True).double()
    real, fake = (torch.randn(3, 3, 16, 16, dtype=torch.float64) for _ in range(2))
    mu = torch.randn(3, 3, dtype=torch.float64)
    wrong = real.roll(-1, 0)  # image i + 1 with text i
    says = trees.says
    pairs = [d.conditional(d(x), mu) for x in (real, fake, wrong)]
    alone = [d.unconditional(d(x)) for x in (real, fake, wrong)]
    right, made, other = (says(x, r) for x, r in zip(pairs, (True, False, False), strict=True))
    u_right, u_made, u_other = (says(x, r) for x, r in zip(alone, (True, False, True), strict=True))
    loss = right + made + other + u * (u_right + u_made + u_other)
    if not u:
        loss = right + (made + other) / 2
    ours = discriminator_loss(d, real, fake, mu, mu.roll(1, 0), u)
    torch.testing.assert_close(ours, loss)
    given = [p for n, p in d.named_parameters() if u or "unconditional" not in n]
    torch.testing.assert_close(
        torch.autograd.grad(ours, given), torch.autograd.grad(loss, given), rtol=1e-7, atol=1e-10
    )


def test_colour_consistency_by_hand_and_into_the_larger_image_alone():
    torch.manual_seed(0)
    images = [torch.randn(2, 3, s, s, dtype=torch.float64, requires_grad=True) for s in (2, 4, 8)]
    total = 0.0
    for small, large in ((0, 1), (1, 2)):
        means, covariances = [], []
        for i in (small, large):
            pixels = images[i].detach().flatten(2)
            means.append(pixels.mean(2))
            covariances.append(torch.stack([torch.cov(p, correction=0) for p in pixels]))
        total += (means[0] - means[1]).square().mean().item()
        total += 5 * (covariances[0] - covariances[1]).square().mean().item()
    loss = colour_consistency(images)
    assert loss.item() == pytest.approx(total)
    small, *larger = torch.autograd.grad(loss, images, allow_unused=True)
    assert small is None
    assert all(g.abs().max() > 0 for g in larger)


@pytest.fixture
def trainer():
    torch.manual_seed(0)
    config = SMALL.model_copy(update={"colour": 50.0})
    encoder = trees.Letters()
    made = GANTrainer(config, Networks(build(config, trees.TEXT, None), encoder))
    made.encoder = encoder
    return made


def test_losses_of_a_step_are_the_authors(trainer):
    """G's loss trains the conditioning augmentation through the discriminators' condition too."""
    made, engine = trees.batch(trainer.encoder), trees.Recorder(trainer)
    drawn = trainer.network(made.noise.normal("z", 0, (8,)), made.text.detach())
    losses = trainer.step(made, engine)
    total = 2 * kl_loss(drawn.mean, drawn.logvar) + 50 * colour_consistency(drawn.images)
    for i, d in enumerate(trainer.discriminators):
        x = d(drawn.images[i])
        total = total + trees.says(d.conditional(x, drawn.mean), True)
        total = total + trees.says(d.unconditional(x), True)
        real = F.interpolate(made.images, size=(8 << i,) * 2, mode="bilinear", antialias=True)
        real, mean = made.images if i == 2 else real, drawn.mean.detach()
        other = mean.roll(1, 0)
        expected = discriminator_loss(d, real, drawn.images[i].detach(), mean, other, 1.0)
        assert engine.losses[f"discriminator{i}"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert engine.losses["generator"].item() == pytest.approx(total.item(), rel=1e-4)
    expected = torch.autograd.grad(total, list(trainer.network.parameters()))
    for ours, theirs in zip(engine.gradients["generator"], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-4)
    names = {"discriminator0", "discriminator1", "discriminator2", "adversarial", "kl", "colour"}
    assert set(losses) == names


def test_a_step_wastes_nothing(trainer):
    """G once; each D on real, fake and again on fake; no gradient into what is not updated."""
    calls = dict.fromkeys(trainer.modules, 0)
    for name, module in trainer.modules.items():
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    trainer.step(trees.batch(trainer.encoder), trees.Recorder(trainer))
    assert calls == {"network": 1, "discriminator0": 3, "discriminator1": 3, "discriminator2": 3}
    modules = [*trainer.modules.values(), trainer.encoder]
    assert all(p.grad is None for module in modules for p in module.parameters())


def test_text_is_pretrained_where_it_can_be():
    assert [s.name for s in stages(SMALL, trees.Letters())] == ["gan"]
    both = stages(SMALL, trees.Letters(frozen=False))
    assert [s.name for s in both] == ["text", "gan"]
    assert sum(s.share for s in both) == pytest.approx(1)


# --- registration and the whole path --------------------------------------------------------------


def test_presets_are_the_authors():
    spec = registry().models["stackganv2"]
    assert set(import_object(spec.config).presets()) == set(spec.presets)
    s = resolve_config("stackganv2", preset="cub", data_needed=False).settings
    assert (s.gf, s.df, s.z_dim, s.c_dim, s.residual_blocks, s.batch_size) == (
        64,
        64,
        100,
        128,
        2,
        24,
    )
    assert (s.lr_g, s.lr_d, s.beta1, s.beta2, s.ema_decay) == (2e-4, 2e-4, 0.5, 0.999, 0.999)
    assert (s.unconditional, s.colour, s.kl, s.outline) == (1.0, 0.0, 2.0, 0.0)
    assert not s.standardise
    assert not s.recalibrate
    assert s.steps / (8_855 // 24) == 600


def test_trains_saves_draws_and_resumes_to_the_same_weights(small, tmp_path):
    whole = train(
        resolve_config("stackganv2", sets=small("stackganv2", "steps=6", "text_share=0.34")),
        tmp_path / "run",
        reporter=Silent(),
    )
    model = load(whole.path, "cpu")
    assert [image.size for image in model.sample(["a red star"], n=2)] == [(32, 32)] * 2
    part = Run(tmp_path / "part")
    shutil.copytree(whole.path, part.path)
    part.summary_file.unlink()
    for later in part.checkpoints.iterdir():
        if int(later.name.removeprefix("step-")) > 4:
            shutil.rmtree(later)
    resume(part.path, reporter=Silent())
    ours, theirs = (load_tensors(r.model / "generator.safetensors", "x") for r in (part, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
