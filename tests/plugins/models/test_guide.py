"""The model `guide`: its likelihoods by hand, its training, import, and a guided sample."""

import json

import pytest
import torch
from torch.nn import functional as F

from t2i.core.engine import train
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.models.loading import load
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.gan.losses.contrastive import contrast
from t2i.plugins.models.guide.config import GuideConfig
from t2i.plugins.models.guide.networks import NoisyClip
from t2i.plugins.models.guide.training import GuideTrainer, stages
from t2i.plugins.models.guide.weights import load_weights

SMALL = {
    "image_size": 8, "patch": 2, "schedule": "cosine", "width": 6, "text_hidden": 8, "compared": 4,
    "adm": {"base": 16, "multipliers": (1,), "blocks": 1, "attention": (4,), "groups": 4,
            "head_width": 8},
    "lr": 5e-3,
}  # fmt: skip
COLOURS = {"red": (1.0, -1, -1), "blue": (-1, -1, 1.0), "grey": (0.0, 0, 0)}


class Colours(TextEncoder):
    """A fixed vector for each of three words."""

    trainable = False

    def __init__(self):
        super().__init__()
        self.shape = TextShape(3, 3)
        self.register_buffer("table", torch.eye(3))

    def encode(self, captions):
        rows = [list(COLOURS).index(caption) for caption in captions]
        return TextFeatures.of(sentence=self.table[rows], captions=tuple(captions))


class Engine:
    progress = 0.0

    def __init__(self, trainer):
        self.trainer = trainer

    def update(self, name, loss):
        loss.backward()
        self.trainer.optimizers[name].step()
        self.trainer.optimizers[name].zero_grad()

    def gathered(self, x):
        return x


def drawn(**settings):
    """A guide whose parameters are all drawn at random."""
    torch.manual_seed(0)
    guide = NoisyClip(GuideConfig.of({**SMALL, **settings}, "test"), TextShape(3, 3))
    for parameter in guide.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return guide.eval()


def fitted(steps, **settings):
    torch.manual_seed(0)
    guide = NoisyClip(GuideConfig.of({**SMALL, **settings}, "test"), TextShape(3, 3))
    trainer, encoder = GuideTrainer(guide.config, Networks(guide, Colours())), Colours()
    captions = tuple(COLOURS) * 4
    images = torch.tensor([COLOURS[c] for c in captions])[:, :, None, None].expand(12, 3, 8, 8)
    for i in range(steps):
        batch = Batch(
            images.contiguous(), captions, captions, StepNoise(0, i, 0, 12, 12), encoder.encode
        )
        losses = trainer.step(batch, Engine(trainer))
    return guide.eval(), {name: float(loss.detach()) for name, loss in losses.items()}


def test_without_kept_captions_it_is_the_scaled_cosine():
    guide, text = drawn(compared=0), Colours().encode(["red", "blue"])
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 800])
    f = guide.image(F.pixel_unshuffle(x, 2), t)
    g = guide.text(text.sentence)
    expected = guide.log_scale.exp() * F.cosine_similarity(f, g)
    torch.testing.assert_close(guide.log_likelihood(x, t, guide.condition(text)), expected)


def test_kept_captions_make_it_a_probability():
    """Over the caption and the different ones among those kept; the newest stay."""
    guide, encoder = drawn(), Colours()
    for caption in ("grey", "red", "blue", "red", "blue"):
        guide.keep(encoder.encode([caption]).sentence)
    assert int(guide.count) == 4
    torch.testing.assert_close(guide.kept, encoder.table[[1, 0, 1, 0]])
    x, t = torch.randn(1, 3, 8, 8).expand(3, -1, -1, -1), torch.tensor([9] * 3)
    scores = drawn(compared=0)
    at = {}
    for caption in COLOURS:
        one = scores.condition(encoder.encode([caption] * 3))
        at[caption] = scores.log_likelihood(x, t, one)[0]
    text = guide.condition(encoder.encode(list(COLOURS)))
    ours = guide.log_likelihood(x, t, text)
    red, blue, grey = at["red"].exp(), at["blue"].exp(), at["grey"].exp()
    expected = torch.stack([
        red / (red + 2 * blue), blue / (blue + 2 * red), grey / (grey + 2 * red + 2 * blue),
    ]).log()  # fmt: skip
    torch.testing.assert_close(ours, expected)


def test_the_loss_leaves_equal_captions_out():
    guide = drawn(compared=0)
    trainer, encoder = GuideTrainer(guide.config, Networks(guide, Colours())), Colours()
    captions, images = ("red", "blue", "red"), torch.randn(3, 3, 8, 8)
    noise = StepNoise(0, 0, 0, 3, 3)
    seen = []
    engine = Engine(trainer)
    engine.update = lambda name, loss: seen.append(loss)
    trainer.step(Batch(images, captions, captions, noise, encoder.encode), engine)
    noise = StepNoise(0, 0, 0, 3, 3)
    t = guide.schedule.time_at(noise.uniform("t", 0, ()))
    eps = noise.normal("eps", 0, (3, 8, 8))
    alpha, sigma = (f(t)[:, None, None, None] for f in (guide.schedule.alpha, guide.schedule.sigma))
    f = guide.of_images(alpha * images + sigma * eps, t)
    s = guide.log_scale.exp() * f @ guide.of_sentences(encoder.encode(captions).sentence).T
    s[0, 2] = s[2, 0] = -torch.inf
    own = s.diagonal()
    expected = ((s.logsumexp(1) - own).mean() + (s.logsumexp(0) - own).mean()) / 2
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("classes", [(), ("red", "blue", "grey")])
def test_it_learns_to_tell_noisy_images_apart(classes):
    guide, losses = fitted(40, classes=classes)
    images = torch.tensor(list(COLOURS.values()))[:, :, None, None].expand(3, 3, 8, 8)
    t = torch.full((3,), 400)
    x_t = 0.8 * images + 0.6 * torch.randn(3, 3, 8, 8)
    of = [
        guide.log_likelihood(x_t, t, guide.condition(Colours().encode([caption] * 3)))
        for caption in COLOURS
    ]
    assert torch.stack(of).argmax(0).tolist() == [0, 1, 2]
    if classes:
        assert set(losses) == {"cross_entropy"}
        torch.testing.assert_close(torch.stack(of).exp().sum(0), torch.ones(3))
    else:
        assert set(losses) == {"contrastive", "found"}


def test_presets_are_whole_and_the_classifiers_have_the_papers_sizes():
    counts = {"adm64": 65_438_568, "adm128": 42_568_040, "adm256": 54_096_360, "adm512": 54_448_360}
    for preset, count in counts.items():
        run = resolve_config("guide", preset=preset, data_needed=False,
                             sets=[f"classes={[str(i) for i in range(1000)]}"])  # fmt: skip
        with torch.device("meta"):
            made = NoisyClip(run.settings, TextShape(512, 512))
        assert sum(p.numel() for p in made.parameters()) == count
    for preset in ("tiny", "shapes"):
        settings = resolve_config("guide", preset=preset).settings
        assert NoisyClip(settings, TextShape(64, 64)).noise_shape == (3, 32, 32)
    (stage,) = stages(settings, Colours())
    assert stage.name == "guide"
    with pytest.raises(UserError, match="must be a multiple of 8 for this network"):
        GuideConfig.of({**SMALL, "image_size": 12, "patch": 8}, "test")
    with pytest.raises(UserError, match="reads no vectors"):
        GuideConfig.of({"adm": {"encoder_kv": 3}}, "test")


def test_the_authors_classifiers_are_imported(tmp_path):
    source, encoder = drawn(classes=("0", "1", "2")), SMALL["adm"]
    torch.save(source.image.state_dict(), tmp_path / "64x64_classifier.pt")
    sets = [f"{key}={value}" for key, value in SMALL.items() if key not in ("adm", "lr")]
    sets += [f"adm={json.dumps(encoder)}"]
    config = resolve_config("guide", preset="adm64", sets=sets, data_needed=False)
    guide = load_weights(config, [tmp_path / "64x64_classifier.pt"]).generator
    assert guide.config.classes == ("0", "1", "2")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 7])
    text = TextFeatures.of(sentence=torch.zeros(2, 1), captions=("2", "0"))
    ours, theirs = (g.log_likelihood(x, t, g.condition(text)) for g in (guide.eval(), source))
    torch.testing.assert_close(ours, theirs)
    with pytest.raises(UserError, match="one file holds the whole classifier, 2 are given"):
        load_weights(config, [tmp_path, tmp_path])
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"'out.2.c_proj.weight' is missing"):
        load_weights(config, [tmp_path / "other.pt"])


def test_a_run_of_it_steers_ddpm_with_every_kind_of_sampler(tmp_path):
    """Trained for a few steps only: that the gradient reaches the samples, and repeats."""
    small = ["steps=3", "batch_size=4", "checkpoint_every=3", "sample_every=3"]
    train(resolve_config("guide", sets=[*small, "adm.base=32", "width=8"]), tmp_path / "guide")
    train(resolve_config("ddpm", sets=[*small, "unet.channels=[16,16]", "unet.text_map=4"]),
          tmp_path / "model")  # fmt: skip
    model, guide = load(tmp_path / "model", "cpu"), load(tmp_path / "guide", "cpu")
    kept = guide.generator.count
    assert int(kept) == 12
    for sampler in ("ddpm", "ddim", "euler"):
        more = {"sampler": sampler, "steps": 3, "guidance": 1.0, "seed": 0}
        plain = model.sample(["a red circle"], **more)[0]
        steered = model.sample(["a red circle"], guide=guide.guide(300.0), **more)[0]
        again = model.sample(["a red circle"], guide=guide.guide(300.0), **more)[0]
        assert plain.tobytes() != steered.tobytes() == again.tobytes()


def test_an_image_is_told_from_kept_captions_too():
    scores = torch.randn(3, 3, dtype=torch.float64)
    kept = torch.randn(3, 5, dtype=torch.float64)
    kept[1, 2] = -torch.inf  # image 1's own caption
    alike = torch.eye(3, dtype=torch.bool)
    alike[0, 2] = alike[2, 0] = True
    wanted = []
    for i in range(3):
        others = [scores[i, j] for j in range(3) if i == j or not alike[i, j]]
        row = torch.stack([*others, *kept[i]])
        column = torch.stack([scores[j, i] for j in range(3) if i == j or not alike[i, j]])
        wanted += [row.logsumexp(0) - scores[i, i], column.logsumexp(0) - scores[i, i]]
    torch.testing.assert_close(contrast(scores, alike, kept) / 2, torch.stack(wanted).mean())


def test_the_loss_against_kept_captions_is_a_setting():
    guide = drawn(compared=4, against_kept=True)
    text = Colours().encode(["red", "blue"])
    f = torch.nn.functional.normalize(torch.randn(2, 6), dim=1)
    g = guide.of_sentences(text.sentence)
    assert guide.against_kept(f, g).shape == (2, 0)
    guide.keep(text.sentence[:1])
    scores = guide.against_kept(f, g)
    assert scores[0, 0] == -torch.inf  # its own caption
    torch.testing.assert_close(scores[1, 0], guide.scale * (f[1] @ g[0]))
