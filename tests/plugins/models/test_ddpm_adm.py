"""ADM as presets of `ddpm`: learned variances in training and sampling, and the authors' files."""

import json

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.interfaces.trainer import Networks
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.diffusion.learned_range import variational_bits
from t2i.plugins.common.diffusion.training import DenoisingTrainer
from t2i.plugins.models.ddpm.config import DDPMConfig
from t2i.plugins.models.ddpm.networks import DDPMGenerator
from t2i.plugins.models.ddpm.weights import load_weights

ADM = {"base": 16, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "groups": 4,
       "head_width": 8}  # fmt: skip
SMALL = {"image_size": 8, "adm": ADM, "learned_range": True, "timesteps": 50}
SETS = ["image_size=8", f"adm={json.dumps({**ADM, 'qkv': 'heads'})}", "timesteps=50"]


def drawn(**settings):
    torch.manual_seed(0)
    config = DDPMConfig.of({**SMALL, **settings}, "test")
    generator = DDPMGenerator(config, TextShape(1, 1) if config.classes else TextShape(5, 5))
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return generator.eval()


@pytest.mark.parametrize(
    ("preset", "count"), [("adm64", 295_530_438), ("adm128", 421_030_918), ("adm256", 553_339_398),
                          ("adm512", 558_498_950)]
)  # fmt: skip
def test_presets_are_whole(preset, count):
    """The papers' networks without their table of classes, and with a map of CLIP's sentence."""
    run = resolve_config("ddpm", preset=preset, data_needed=False)
    assert (run.sampler.name, run.sampler.config.steps) == ("ddpm", 250)
    with torch.device("meta"):
        made = DDPMGenerator(run.settings, TextShape(512, 512))
    assert sum(p.numel() for p in made.parameters()) == count
    registry().samplers.build(run.sampler).check(made)
    ddim = resolve_config("ddim", preset=preset, data_needed=False).sampler
    assert (ddim.name, ddim.config.steps, ddim.config.clipped_eps) == ("ddim", 25, True)


def test_the_second_half_of_the_output_is_the_variance():
    generator, x, t = drawn(), torch.randn(2, 3, 8, 8), torch.tensor([0, 49])
    text = generator.condition(TextFeatures.of(sentence=torch.randn(2, 5)))
    prediction, v = generator.ranged(x, t, text)
    torch.testing.assert_close(generator(x, t, text), prediction)
    torch.testing.assert_close(torch.cat([prediction, v], 1), generator.network(x, t, text))
    plain = drawn(learned_range=False)
    with pytest.raises(NotImplementedError, match="predicts no variance"):
        plain.ranged(x, t, text)
    learned = registry().samplers.build(registry().samplers.choose("ddpm", {"variance": "learned"}))
    learned.check(generator)
    with pytest.raises(UserError, match="variance = learned: this model predicts no variance"):
        learned.check(plain)


def test_the_loss_is_the_error_and_the_bound_whose_mean_is_held():
    generator = drawn()
    trainer = DenoisingTrainer(generator.config, Networks(generator, Trivial()))
    torch.manual_seed(1)
    z_0, eps = torch.rand(2, 3, 8, 8) * 2 - 1, torch.randn(2, 3, 8, 8)
    t, text = torch.tensor([0, 30]), TextFeatures.of(sentence=torch.randn(2, 5))
    text = generator.condition(text)
    alpha, sigma = (f(t)[:, None, None, None] for f in
                    (generator.schedule.alpha, generator.schedule.sigma))  # fmt: skip
    z_t = alpha * z_0 + sigma * eps
    losses = trainer.errors(z_0, z_t, t, eps, text)
    output, v = generator.network(z_t, t, text).chunk(2, 1)
    torch.testing.assert_close(losses["diffusion"], (output - eps).square().mean())
    x_0 = (z_t - sigma * output) / alpha
    bits = variational_bits(generator.schedule, z_0, z_t, t, x_0, v).mean()
    torch.testing.assert_close(losses["bits"], bits * 50 / 1000)
    last = generator.unet.unet.out[2].weight
    gradient = torch.autograd.grad(losses["bits"], last)[0]
    assert gradient[:3].abs().max() == 0
    assert gradient[3:].abs().max() > 0
    seen = []
    trainer.learn(z_0, eps, t, text, Seen(seen))
    torch.testing.assert_close(seen[0], losses["diffusion"] + losses["bits"])


class Trivial:
    trainable = False


class Seen:
    def __init__(self, seen):
        self.seen = seen

    def update(self, name, loss):
        self.seen.append(loss)


@pytest.mark.parametrize("settings", [{"variance": "learned"}, {"variance": "beta~"}])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_learned_chain_by_hand(settings, guidance):
    """Two steps of a respaced chain: mean of the clipped x_0, and the interpolated variance."""
    generator = drawn()
    text, null = (
        generator.condition(TextFeatures.of(sentence=s)) for s in torch.randn(2, 1, 1, 5)[:, 0]
    )
    noise = PromptNoise(0, ((0, 0),))
    choice = registry().samplers.choose(
        "ddpm", {"respacing": "1,1", "clip": 1.0, "guidance": guidance, **settings}
    )
    request = Request(text=text, noise=noise, null=null)
    with torch.no_grad():
        ours = registry().samplers.build(choice).sample(generator, request)
        abar = generator.schedule.alphas_cumprod[[0, 25]].float()
        x = noise.start("x_T", (3, 8, 8))

        def predicted(x, t):
            given, v = generator.ranged(x, torch.tensor([t]), text)
            without = generator(x, torch.tensor([t]), null)
            return without + guidance * (given - without), v

        eps, v = predicted(x, 25)
        x_0 = ((x - (1 - abar[1]).sqrt() * eps) / abar[1].sqrt()).clamp(-1, 1)
        beta = 1 - abar[1] / abar[0]
        least = beta * (1 - abar[0]) / (1 - abar[1])
        mean = (beta * abar[0].sqrt() * x_0 + (1 - abar[0]) * (1 - beta).sqrt() * x) / (1 - abar[1])
        k = (v + 1) / 2
        std = least.sqrt()
        if settings["variance"] == "learned":
            std = (0.5 * (k * beta.log() + (1 - k) * least.log())).exp()
        (random,) = noise.generators("chain", 0)
        x = mean + std * torch.randn(1, 3, 8, 8, generator=random)
        eps, _ = predicted(x, 0)
        expected = ((x - (1 - abar[0]).sqrt() * eps) / abar[0].sqrt()).clamp(-1, 1)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def test_ddim_computes_eps_anew_from_the_clipped_x_0():
    generator, text = drawn(), TextFeatures.of(sentence=torch.randn(1, 5))
    text, noise = generator.condition(text), PromptNoise(0, ((0, 0),))
    gradient = torch.randn(1, 3, 8, 8)
    choice = registry().samplers.choose(
        "ddim", {"respacing": "1,1", "clip": 0.7, "clipped_eps": True}
    )
    with torch.no_grad():
        for guide in (None, lambda x, t, text: gradient):
            request = Request(text=text, noise=noise, guide=guide)
            ours = registry().samplers.build(choice).sample(generator, request)
            x = noise.start("x_T", (3, 8, 8))
            for t, before in ((25, 0), (0, None)):
                abar = generator.schedule.alphas_cumprod[t].float()
                last = (
                    torch.ones(())
                    if before is None
                    else generator.schedule.alphas_cumprod[0].float()
                )
                eps = generator(x, torch.tensor([t]), text)
                x_0 = ((x - (1 - abar).sqrt() * eps) / abar.sqrt()).clamp(-0.7, 0.7)
                eps = (x - abar.sqrt() * x_0) / (1 - abar).sqrt()
                if guide:
                    eps = eps - (1 - abar).sqrt() * gradient
                    x_0 = (x - (1 - abar).sqrt() * eps) / abar.sqrt()
                x = last.sqrt() * x_0 + (1 - last).sqrt() * eps
            torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="clipped_eps needs clip"):
        registry().samplers.choose("ddim", {"clipped_eps": True})


def saved(path, generator, **more):
    state = {k.removeprefix("unet."): v for k, v in generator.unet.state_dict().items()
             if not k.startswith("sentence.")}  # fmt: skip
    torch.save({**state, **more}, path)
    return path


@pytest.mark.parametrize("classes", [(), ("0", "1", "2")])
@pytest.mark.parametrize("learned", [True, False])
def test_the_authors_files_are_imported(tmp_path, classes, learned):
    source = drawn(classes=classes, learned_range=learned)
    path = saved(tmp_path / "8x8_diffusion.pt", source)
    model = load_weights(
        resolve_config("ddpm", preset="adm64", sets=SETS, data_needed=False), [path]
    )
    generator = model.generator.eval()
    assert generator.config.classes == classes
    assert generator.learned_range == learned
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([4, 40])
    text = TextFeatures.of(sentence=torch.zeros(2, 1), captions=("2", "0"))
    theirs = source.unet.label_emb(torch.tensor([2, 0])) if classes else None
    expected = source.unet.unet(x, t, theirs)[:, :3]
    torch.testing.assert_close(generator(x, t, generator.condition(text)), expected)
    if classes:
        with pytest.raises(UserError, match="know classes only, by name: 0, 1, 2"):
            model.sample(["a cat"], steps=2, sampler="ddim")


def test_other_files_are_refused_by_name(tmp_path):
    config = resolve_config("ddpm", preset="adm64", sets=SETS, data_needed=False)
    path = saved(tmp_path / "a.pt", drawn(), **{"out.2.c_proj.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="a classifier: t2i import --model guide"):
        load_weights(config, [path])
    path = saved(tmp_path / "b.pt", drawn(),
                 **{"input_blocks.0.0.weight": torch.zeros(16, 6, 3, 3)})  # fmt: skip
    with pytest.raises(UserError, match="an upsampler, which enlarges images"):
        load_weights(config, [path])
    with pytest.raises(UserError, match="add --preset adm64 or adm128"):
        load_weights(resolve_config("ddpm", preset="tiny"), [path])
    with pytest.raises(UserError, match="2 are given"):
        load_weights(config, [path, path])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 9}, "must be a multiple of 2"),
        ({"adm": None}, "learned_range needs a network with twice the channels"),
        ({"adm": None, "learned_range": False, "classes": ("a",)}, "only ADM's network"),
        ({"schedule": "mixing"}, "schedule=mixing is continuous"),
        ({"adm": {**ADM, "encoder_kv": 4}}, "words of the text encoder have 5 values"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        DDPMGenerator(DDPMConfig.of({**SMALL, **settings}, "test"), TextShape(5, 5))


def test_words_reach_the_picture_through_keys_and_values():
    generator = drawn(adm={**ADM, "encoder_kv": 5}).double()
    x, t, sentence = torch.randn(1, 3, 8, 8).double(), torch.tensor([7]), torch.zeros(1, 5).double()
    one, other = (
        generator(x, t, generator.condition(TextFeatures.of(sentence=sentence, words=words)))
        for words in torch.randn(2, 1, 4, 5).double()
    )
    assert (one - other).abs().max() > 1e-5
