"""GLIDE: the text transformer, its way into the U-Net, the importer, inpainting and training."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.families.cascade import KNOWN, low_res
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.glide.config import GlideConfig, TransformerConfig
from t2i.plugins.models.glide.networks import CAPTION, GlideGenerator
from t2i.plugins.models.glide.training import outside, stages
from t2i.plugins.models.glide.transformer import TextTransformer
from t2i.plugins.models.glide.weights import load_weights, named

READER = {"length": 6, "width": 8, "layers": 2, "heads": 2, "tokens": 11}
ADM = {"base": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "groups": 4,
       "head_width": 4, "encoder_kv": 8}  # fmt: skip
BASE = {"image_size": 8, "adm": ADM, "learned_range": True, "transformer": READER, "timesteps": 200}
SMALL = {
    "image_size": 16, "base": BASE,
    "upsampler": {**BASE, "image_size": 16, "low_size": 8, "augmentation": 0.0, "adm": ADM},
}  # fmt: skip
PARTS = ("base", "upsampler")


def drawn(module):
    """Every parameter at random: layers that start at 0 hide errors."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return module.double().eval()


def made(**parts):
    document = {**SMALL, **{name: {**SMALL[name], **parts.get(name, {})} for name in PARTS}}
    return drawn(GlideGenerator(GlideConfig.of(document, "test"), TextShape(1, 1)))


def captions(n=3):
    """A whole caption, a short one, and none."""
    tokens = torch.arange(6 * n).view(n, 6) % 11
    mask = torch.arange(6) < torch.tensor([6, 2, 0])[:n, None]
    words = torch.zeros(n, 6, 1).double()
    return TextFeatures(words[:, 0], words, mask, ("a", "b", "")[:n], {"tokens": tokens})


def by_hand(state, tokens, mask, heads=2, layers=2):
    """The transformer by its equations, of the released names."""

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    x = state["token_embedding.weight"][tokens] + state["positional_embedding"]
    x = torch.where(mask[..., None], x, state["padding_embedding"].expand_as(x))
    for i in range(layers):
        at = f"transformer.resblocks.{i}"
        rows = linear(norm(x, f"{at}.ln_1"), f"{at}.attn.c_qkv")
        gathered = []
        for head in rows.chunk(heads, -1):  # each head's queries, keys and values are neighbours
            q, k, v = head.chunk(3, -1)
            gathered.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v)
        x = x + linear(torch.cat(gathered, -1), f"{at}.attn.c_proj")
        inner = F.gelu(linear(norm(x, f"{at}.ln_2"), f"{at}.mlp.c_fc"))
        x = x + linear(inner, f"{at}.mlp.c_proj")
    return norm(x, "final_ln")


def released(part):
    """The state dict of a part, by the names of the released files."""
    own = part.state_dict()
    back = {}
    for key, tensor in own.items():
        for prefix in ("transformer.resblocks.", "transformer.", "unet.unet.", "unet."):
            if key.startswith(prefix):
                kept = "transformer.resblocks." if prefix.endswith("blocks.") else ""
                back[kept + key.removeprefix(prefix)] = tensor
                break
    return back


def test_the_transformer_is_that_of_the_paper():
    transformer = drawn(TextTransformer(TransformerConfig.of(READER, "t"), TextShape(1, 1)))
    state = {
        f"transformer.{key}" if key.startswith("resblocks") else key: tensor
        for key, tensor in transformer.state_dict().items()
    }
    text = captions()
    read = transformer(text)
    expected = by_hand(state, text.extras["tokens"], text.mask)
    torch.testing.assert_close(read.words, expected)
    torch.testing.assert_close(read.sentence, expected[:, -1])


def test_padding_hides_the_tokens_under_it_and_short_features_are_padded():
    transformer = drawn(TextTransformer(TransformerConfig.of(READER, "t"), TextShape(1, 1)))
    text = captions()
    other = replace(text, extras={"tokens": torch.where(text.mask, text.extras["tokens"], 10)})
    assert torch.equal(transformer(other).words, transformer(text).words)
    cut = replace(
        text[1:], words=text.words[1:, :2], mask=text.mask[1:, :2],
        extras={"tokens": text.extras["tokens"][1:, :2]},
    )  # fmt: skip
    torch.testing.assert_close(transformer(cut).words, transformer(text).words[1:])


def test_words_of_any_encoder_are_read_and_its_sentence_can_join():
    config = TransformerConfig.of({**READER, "tokens": 0, "sentence": True}, "t")
    transformer = drawn(TextTransformer(config, TextShape(5, 3)))
    text = TextFeatures.of(sentence=torch.randn(2, 5).double(), words=torch.randn(2, 9, 3).double())
    read = transformer(text)
    assert read.words.shape == (2, 6, 8)
    torch.testing.assert_close(
        read.sentence, read.words[:, -1] + transformer.sentence(text.sentence)
    )
    with pytest.raises(UserError, match="the text encoder makes no tokens: use encoder gpt2"):
        drawn(TextTransformer(TransformerConfig.of(READER, "t"), TextShape(5, 3)))(text)


@pytest.mark.parametrize("inpainting", [False, True])
def test_text_joins_the_time_embedding_and_every_attention(inpainting):
    model = made(base={"inpainting": inpainting})
    base, x, t = model.part("base"), torch.randn(3, 3, 8, 8).double(), torch.tensor([0, 70, 199])
    text = base.condition(captions())
    inputs = torch.cat([x, x.new_zeros(3, 4, 8, 8)], 1) if inpainting else x
    projected = base.unet.transformer_proj(text.words[:, -1])
    expected = base.unet.unet(inputs, t, projected, text.words.mT)
    prediction, v = base.ranged(x, t, text)
    torch.testing.assert_close(torch.cat([prediction, v], 1), expected)
    torch.testing.assert_close(base(x, t, text), prediction)
    words = replace(text, words=text.words.flip(0))
    assert (base(x, t, words) - prediction).abs().amax((1, 2, 3))[[0, 2]].min() > 1e-6
    moved = replace(text, extras={**text.extras, CAPTION: projected.flip(0)})
    assert (base(x, t, moved) - prediction).abs().amax((1, 2, 3))[[0, 2]].min() > 1e-6


def test_the_upsampler_is_given_the_rounded_image_enlarged():
    up = made().part("upsampler")
    low, x = 3 * torch.rand(2, 3, 8, 8).double() - 1.5, torch.randn(2, 3, 16, 16).double()
    t, text = torch.tensor([0, 199]), captions(2)
    extras = up.enlarging(low, PromptNoise(1, ((0, 0), (1, 0))))
    conditioned = up.condition(replace(text, extras={**text.extras, **extras}))
    rounded = ((low.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    large = F.interpolate(rounded, (16, 16), mode="bilinear", align_corners=False)
    read = up.transformer(text)
    expected = up.unet.unet(
        torch.cat([x, large], 1), t, up.unet.transformer_proj(read.sentence), read.words.mT
    )
    torch.testing.assert_close(torch.cat(up.ranged(x, t, conditioned), 1), expected)


@pytest.mark.parametrize(
    ("preset", "counts"),
    [("filtered", (385_030_726, 398_361_286)), ("paper", (3_554_414_086, 1_641_702_790))],
)
def test_presets_have_the_sizes_of_the_papers_networks(preset, counts):
    run = resolve_config("glide", preset=preset, data_needed=False)
    with torch.device("meta"):
        model = GlideGenerator(run.settings, TextShape(1, 1))
    assert tuple(sum(p.numel() for p in model.part(n).parameters()) for n in PARTS) == counts
    registry().samplers.build(run.sampler).check(model)


@pytest.mark.parametrize("inpainting", [False, True])
def test_released_files_are_read_in_any_order(tmp_path, inpainting):
    settings = {name: {"inpainting": inpainting} for name in PARTS}
    model = made(**settings).float()
    files = []
    for name in PARTS:
        files.append(tmp_path / f"{name}.pt")
        torch.save(released(model.part(name)), files[-1])
    sets = [f"{name}={json.dumps(SMALL[name])}" for name in PARTS]
    config = resolve_config(
        "glide", preset="filtered", sets=["image_size=16", *sets, "encoder.name=none"],
        data_needed=False,
    )  # fmt: skip
    opened = load_weights(config, files[::-1]).generator
    for name, tensor in model.state_dict().items():
        assert torch.equal(opened.state_dict()[name], tensor), name
    assert opened.part("base").unet.inpainting is inpainting
    with pytest.raises(UserError, match="no file of the part base is given"):
        load_weights(config, files[1:])
    with pytest.raises(UserError, match="are both of the part base"):
        load_weights(config, [files[0], files[0]])
    assert set(named(released(model.part("base")))) == set(model.part("base").state_dict())


def test_settings_that_do_not_fit_are_refused():
    for changed, said in (
        ({"base": {**BASE, "adm": {**ADM, "encoder_kv": 4}}}, "must be transformer.width"),
        ({"upsampler": {**SMALL["upsampler"], "augmentation": 0.5}}, "not told the level"),
        ({"base": {**BASE, "adm": None, "learned_range": False, "inpainting": True}}, "set adm"),
        ({"base": {**BASE, "adm": None}}, "learned_range needs"),
        ({"image_size": 32}, "must be image_size"),
        ({"base": {**BASE, "image_size": 16}}, "must be base.image_size"),
    ):
        with pytest.raises(UserError, match=said):
            GlideConfig.of({**SMALL, **changed}, "test")


def single(text):
    return text.map(lambda x: x.float() if x.is_floating_point() else x)


def inpainted(model, sampler):
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, :7] = 1
    request = Request(
        text=single(captions(2)), noise=PromptNoise(5, ((0, 0), (1, 0))), image=image, mask=mask
    )
    with torch.no_grad():
        return image, sampler.sample(model, request)


def cascade(**base):
    settings = {"samplers": {"base": {"name": "ddim", "steps": 4, **base},
                             "upsampler": {"name": "ddim", "steps": 3}}}  # fmt: skip
    return registry().samplers.build(registry().samplers.choose("cascade", settings, "test"))


def test_inpainting_keeps_what_is_known_and_tells_the_networks(monkeypatch):
    model = made(**{name: {"inpainting": True} for name in PARTS}).float()
    given, drawn_low = [], []
    for name in PARTS:
        unet = model.part(name).unet.unet
        monkeypatch.setattr(
            unet, "forward", lambda x, *a, f=unet.forward: (given.append(x), f(x, *a))[1]
        )
    enlarging = model.part("upsampler").enlarging
    monkeypatch.setattr(
        model.part("upsampler"), "enlarging",
        lambda images, *a: (drawn_low.append(images), enlarging(images, *a))[1],
    )  # fmt: skip
    image, out = inpainted(model, cascade())
    torch.testing.assert_close(out[:, :, 7:], image[:, :, 7:])
    assert (out - image)[:, :, :7].abs().amin((2, 3)).max() > 1e-3
    low = F.interpolate(image, (8, 8), mode="area")
    # Row 3 of the small image is made of rows 6 and 7, one of which may change.
    torch.testing.assert_close(
        drawn_low[0][:, :, 4:], ((low + 1) * 127.5).round()[:, :, 4:] / 127.5 - 1
    )
    base, up = given[0], given[-1]
    assert (base.shape[1:], up.shape[1:]) == ((7, 8, 8), (10, 16, 16))
    assert torch.equal(base[:, 6, :, 0], (torch.arange(8) > 3).float().expand(2, 8))
    assert torch.equal(base[:, 3:6, :4], torch.zeros(2, 3, 4, 8))
    assert torch.equal(up[:, 3:6, 7:], image[:, :, 7:])
    assert torch.equal(up[:, 6, :, 0], (torch.arange(16) > 6).float().expand(2, 16))


def test_an_image_alone_is_where_the_base_starts():
    model, image = made().float(), torch.rand(2, 3, 16, 16) * 2 - 1
    request = Request(
        text=single(captions(2)), noise=PromptNoise(5, ((0, 0), (1, 0))), image=image, strength=0.0
    )
    kept = []
    link = model.link

    def noted(name, text, previous, noise):
        kept.append((previous, KNOWN in text.extras))
        return link(name, text, previous, noise)

    model.link = noted
    with torch.no_grad():
        out = cascade().sample(model, request)
    low = ((F.interpolate(image, (8, 8), mode="area") + 1) * 127.5).round() / 127.5 - 1
    torch.testing.assert_close(kept[1][0], low)
    assert not kept[1][1]
    assert (out - image).abs().mean() > 1e-2


def test_erased_rectangles_lie_between_their_corners():
    corners = torch.tensor([[[0.0, 0.6], [0.5, 0.1]], [[0.9, 0.9], [0.9, 0.9]]])
    mask = outside(corners, (4, 8))
    expected = torch.ones(2, 1, 4, 8)
    expected[0, :, :2, 1:5] = 0
    assert torch.equal(mask, expected)


class Trivial(torch.nn.Module):
    trainable = False


class Updates:
    """An engine that takes the step."""

    def __init__(self, trainer):
        self.trainer = trainer

    def update(self, name, loss):
        self.loss = loss
        loss.backward()
        self.trainer.optimizers[name].step()


@pytest.mark.parametrize("name", PARTS)
def test_training_reaches_the_transformer_and_the_known_part(name):
    settings = {n: {**SMALL[n], "inpainting": True, "lr_transformer": 1e-5} for n in PARTS}
    config = GlideConfig.of({**SMALL, **settings}, "test")
    model = made(**settings).float()
    stage = {stage.name: stage for stage in stages(config, Trivial())}[name]
    trainer = stage.trainer(Networks(model, Trivial()))
    text = single(captions(2))
    batch = Batch(
        images=torch.rand(2, 3, 16, 16) * 2 - 1, captions=("a", "b"), keys=("a", "b"),
        noise=StepNoise(0, 1, 0, 2, 2), encode=lambda captions: text,
    )  # fmt: skip
    seen, unet = [], model.part(name).unet
    forward = unet.unet.forward
    unet.unet.forward = lambda x, *a: (seen.append(x), forward(x, *a))[1]
    transformer = model.part(name).transformer
    before = [p.detach().clone() for p in transformer.parameters()]
    losses = trainer.step(batch, Updates(trainer))
    assert set(losses) == {"diffusion", "bits"}
    steps = [(a - b).abs().max() for a, b in zip(before, transformer.parameters(), strict=True)]
    assert all(0 < step < 2e-5 for step in steps), steps
    known = seen[0][:, 6:7]
    assert 0 < known.mean() < 1
    assert torch.equal(seen[0][:, 3:6], seen[0][:, 3:6] * known)
    images = low_res(batch.images, 8) if name == "base" else batch.images
    assert torch.equal(seen[0][:, 3:6], images * known)
