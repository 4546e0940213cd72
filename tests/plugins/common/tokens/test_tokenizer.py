"""Tokenizers: networks, round trips, the authors' files, and training."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from t2i.core.engine.local import LocalEngine
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.io.json_files import read_json, write_json
from t2i.core.io.tensors import save_tensors
from t2i.core.settings.engine import EngineConfig
from t2i.plugins.common.tokens.tokenizer import (
    ImageTokenizer,
    gumbel,
    keep_tokenizer,
    save_tokenizer,
    shrunk,
    tokenizer_of,
    widened,
)
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig
from t2i.plugins.common.tokens.training import TokenizerTrainer, tokenizer_stage

VQGAN = {
    "channels": 8, "multiples": (1, 2), "blocks": 1, "attention": (1,), "latent_channels": 6,
    "groups": 4,
}  # fmt: skip
SIZES = {
    "vocabulary": 16, "code_width": 5, "vqgan": VQGAN,
    "vqvae": {"channels": 8, "levels": 1, "residual_channels": 4},
}  # fmt: skip


def config(**more):
    return TokenizerConfig.of({**SIZES, **more}, "test")


@pytest.mark.parametrize("kind", ["vqgan", "vqvae"])
def test_images_become_tokens_row_by_row(kind):
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(config(kind=kind), 16).eval()
    assert (tokenizer.side, tokenizer.length) == (8, 64)
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        tokens = tokenizer.encode(images)
        assert tokens.shape == (3, 64)
        assert tokens.dtype == torch.int64
        vectors = tokenizer.vectors(tokens)
        assert torch.equal(vectors[1, :, 2, 3], tokenizer.quantizer.codes[tokens[1, 2 * 8 + 3]])
        quantised = tokenizer.quantise(tokenizer.features(images))
        torch.testing.assert_close(quantised.vectors, vectors)
        torch.testing.assert_close(tokenizer.decode(tokens), tokenizer.reconstruct(vectors))
        assert tokenizer.decode(tokens).shape == images.shape


def test_the_papers_sizes():
    def count(**settings):
        with torch.device("meta"):
            tokenizer = ImageTokenizer(TokenizerConfig.of(settings, "test"), 256)
        return {
            name: sum(p.numel() for p in part.parameters())
            for name, part in (("encoder", tokenizer.encoder), ("decoder", tokenizer.decoder))
        }, tokenizer.length

    sizes, length = count()
    assert {n: round(c / 1e6, 2) for n, c in sizes.items()} == {"encoder": 29.30, "decoder": 42.45}
    assert length == 256
    _, length = count(kind="vqvae")
    assert length == 64**2


def test_the_vqvaes_layers_are_those_of_the_example():
    encoder = ImageTokenizer(TokenizerConfig(kind="vqvae", code_width=64), 32).encoder
    shapes = [tuple(conv.weight.shape) for conv in encoder.down]
    assert shapes == [(64, 3, 4, 4), (128, 64, 4, 4)]
    assert encoder.conv.weight.shape == (128, 128, 3, 3)


def test_an_image_size_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="multiple of 2"):
        ImageTokenizer(config(), 15)


def test_a_saved_tokenizer_is_opened_by_its_folder(tmp_path):
    own = ImageTokenizer(config(quantizer={"kind": "ema", "restart": 0.1}), 16)
    save_tokenizer(own, tmp_path / "t", torch.float32)
    opened = tokenizer_of(config(weights=str(tmp_path / "t"), vocabulary=99), 16)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    own.eval()
    with torch.no_grad():
        assert torch.equal(opened.encode(images), own.encode(images))
        torch.testing.assert_close(
            opened.decode(opened.encode(images)), own.decode(own.encode(images))
        )
    assert opened.pretrained
    assert opened.vocabulary == 16
    assert not [p for p in opened.parameters() if p.requires_grad]
    assert not opened.train().training
    # A saved model keeps its description.
    (tmp_path / "assets").mkdir()
    keep_tokenizer(opened, tmp_path / "assets")
    again = tokenizer_of(config(weights="gone"), 16, tmp_path / "assets")
    again.load_state_dict(opened.state_dict())
    # Larger than the weights beside it: refused before anything is built.
    save_tensors(tmp_path / "assets.safetensors", {"small": torch.zeros(3)})
    place = tmp_path / "assets" / "tokenizer" / "tokenizer.json"
    write_json(place, {**read_json(place, ""), "vocabulary": 10**7})
    with pytest.raises(UserError, match="more than the weights have"):
        tokenizer_of(config(weights="gone"), 16, tmp_path / "assets")


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match="neither a name of shipped weights"):
        tokenizer_of(config(weights=str(tmp_path)), 16)
    torch.save({"state_dict": {"encoder.conv_in.weight": torch.zeros(2, 2)}}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="no VQGAN"):
        tokenizer_of(config(weights=str(tmp_path / "x.ckpt")), 16)


def authors_state(gumbel_quantizer):
    """Return a random tokenizer, and its weights by the authors' names."""
    torch.manual_seed(1)
    kind = {"kind": "gumbel"} if gumbel_quantizer else {"legacy": True}
    wide = {**VQGAN, "channels": 32, "groups": 32}
    own = ImageTokenizer(config(vqgan=wide, quantizer=kind), 16).eval()
    state = {name.replace("quantizer.", "quantize."): t for name, t in own.state_dict().items()}
    return own, {**state, "loss.discriminator.main.0.weight": torch.zeros(3)}


@pytest.mark.parametrize("gumbel_quantizer", [False, True])
def test_the_authors_checkpoints_are_read_without_their_classes(tmp_path, gumbel_quantizer):
    own, state = authors_state(gumbel_quantizer)
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = ModuleType(name)
    kind = type("ModelCheckpoint", (), {"__module__": name})
    module.ModelCheckpoint = kind
    names = [name.rsplit(".", n)[0] for n in (2, 1, 0)]
    sys.modules.update({one: ModuleType(one) for one in names[:2]} | {name: module})
    try:
        document = {"state_dict": state, "callbacks": {kind: {"best": 1.0}, "own": kind()}}
        (tmp_path / "checkpoints").mkdir()
        torch.save(document, tmp_path / "checkpoints" / "last.ckpt")
    finally:
        for one in names:
            del sys.modules[one]
    for place in (tmp_path, tmp_path / "checkpoints" / "last.ckpt"):
        opened = tokenizer_of(config(weights=str(place)), 16)
        images = torch.rand(2, 3, 16, 16) * 2 - 1
        with torch.no_grad():
            tokens = own.encode(images)
            assert torch.equal(opened.encode(images), tokens)
            torch.testing.assert_close(opened.decode(tokens), own.decode(tokens))


class Harmful:
    """An object whose pickle would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_hostile_checkpoint_runs_nothing(tmp_path):
    _, state = authors_state(False)
    document = {"state_dict": state, "callbacks": Harmful(tmp_path / "harm")}
    torch.save(document, tmp_path / "last.ckpt")
    with pytest.raises(UserError):
        tokenizer_of(config(weights=str(tmp_path / "last.ckpt")), 16)
    assert not (tmp_path / "harm").exists()


def test_missing_tensors_are_named(tmp_path):
    _, state = authors_state(False)
    del state["decoder.mid.block_1.conv1.weight"]
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"decoder\.mid\.block_1\.conv1\.weight"):
        tokenizer_of(config(weights=str(tmp_path / "last.ckpt")), 16)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"kind": "vqvae", "quantizer": {"kind": "ema", "restart": 0.1}},
        {"quantizer": {"kind": "gumbel", "hard": True, "kl_weight": 0.01}},
        {"kind": "vqvae", "losses": {"reconstruction": "logit_laplace"}},
        {"losses": {"adversarial": 0.5, "adversarial_start": 0.0,
                    "discriminator": {"channels": 4, "layers": 1}}},
    ],
)  # fmt: skip
def test_the_trainer_lowers_the_error(more):
    torch.manual_seed(0)
    settings = config(lr=5e-3, betas=(0.9, 0.99), **more)
    tokenizer = ImageTokenizer(settings, 16)
    trainer = TokenizerTrainer(settings, tokenizer)
    engine = LocalEngine(trainer, EngineConfig())
    plain = torch.rand(8, 3, 1, 1).expand(-1, -1, 16, 16) * 2 - 1
    errors = []
    for step in range(25):
        batch = Batch(plain, ("",) * 8, ("",) * 8, StepNoise(0, step, 0, 8, 8), lambda c: None)
        engine.begin_step(step)
        errors.append(trainer.step(batch, engine)["reconstruction"].item())
    assert errors[-1] < errors[0] - 0.1
    tokenizer.eval()
    preview = trainer.preview(batch)
    assert torch.equal(preview[0::2], plain)
    assert preview.shape == (16, 3, 16, 16)


def test_a_stage_is_left_out_if_the_tokenizer_is_pretrained():
    tokenizer = ImageTokenizer(config(), 16)
    (stage,) = tokenizer_stage(config(batch_size=3), 7, lambda networks: tokenizer)
    assert (stage.name, stage.settings) == ("tokenizer", {"batch_size": 3})
    assert stage.trainer(Networks(nn.Identity(), None)).tokenizer is tokenizer
    assert tokenizer_stage(config(weights="shapes-tokens"), 7, lambda networks: tokenizer) == []


def test_maps_to_and_from_the_open_interval():
    images = torch.linspace(-1, 1, 11)
    assert shrunk(images).min().item() == pytest.approx(0.1)
    assert shrunk(images).max().item() == pytest.approx(0.9)
    torch.testing.assert_close(widened(shrunk(images)), images)
    assert gumbel(torch.tensor([0.0, 0.999999, 0.5])).isfinite().all()
    assert gumbel(torch.rand(100_000)).mean().item() == pytest.approx(0.5772, abs=0.02)
