"""t2i import -> t2i sample of models of tokens, in processes of their own, on the authors' formats.

The weights are random and small.
"""

import json

import pytest
import torch
from PIL import Image
from tokenizers import CharBPETokenizer

from t2i import load
from t2i.core.interfaces.text import TextShape
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig
from t2i.plugins.models.dalle.config import DalleConfig
from t2i.plugins.models.dalle.networks import DalleTransformer
from tests.plugins.models.test_vqgan_weights import (
    SETS,
    UNCONDITIONAL,
    K,
    N,
    checkpoint,
    transformer,
)

LENGTH, WORDS = 12, 60


def sets(*settings):
    return [part for one in settings for part in ("--set", one)]


def sampled(t2i, run, name, *more):
    done = t2i("sample", "--run", run, "-p", "a red circle", "--seed", 3, "--out", name, *more)
    assert done.returncode == 0, done.stderr
    image = t2i.work / name / "0000-000.png"
    assert Image.open(image).size == (8, 8)
    return image.read_bytes()


@pytest.mark.slow
def test_tamings_whole_model(t2i):
    checkpoint(t2i.work / "released", transformer(N, N), UNCONDITIONAL)
    done = t2i(
        "import", "--model", "vqgan", "--preset", "faces", "released", "--out", "run", *sets(*SETS)
    )
    assert (done.returncode, done.stderr) == (0, "")
    image = sampled(t2i, "run", "p")
    assert image == sampled(t2i, "run", "q")
    assert image == sampled(t2i, "run", "r", "--guidance", 1)
    labels = UNCONDITIONAL.replace(
        "__is_unconditional__", "{target: taming.modules.util.Labelator}"
    )
    checkpoint(t2i.work / "classes", transformer(N, N), labels)
    done = t2i("import", "--model", "vqgan", "--preset", "faces", "classes", *sets(*SETS))
    assert done.returncode == 2
    assert "Labelator, which captions cannot give" in done.stderr
    assert done.stderr.count("\n") == 1


def mindalle(folder):
    """Write minDALL-E's four files, and return the state dict of its transformer."""
    torch.manual_seed(2)
    (folder / "tokenizer").mkdir(parents=True)
    made = CharBPETokenizer(unk_token="[UNK]", lowercase=True)
    captions = ["a red circle", "a blue square", "two green circles"] * 3
    made.train_from_iterator(captions, vocab_size=WORDS, special_tokens=["[PAD]", "[UNK]"])
    made.save_model(str(folder / "tokenizer"), "bpe-16k")
    numbers = json.loads((folder / "tokenizer" / "bpe-16k-vocab.json").read_text())
    sizes = {"channels": 32, "multiples": (1, 1), "blocks": 1, "attention": (1,),
             "latent_channels": 6}  # fmt: skip
    described = {"vocabulary": K, "code_width": 4, "vqgan": sizes}
    vqgan = ImageTokenizer(TokenizerConfig.of(described, "test"), 8)
    first = {n.replace("quantizer.", "quantize."): t for n, t in vqgan.state_dict().items()}
    config = DalleConfig.of(
        {
            "image_size": 8, "text_length": LENGTH, "text_vocabulary": len(numbers),
            "padding": "token", "positions": "learned",
            "transformer": {"width": 16, "layers": 2, "heads": 2},
        },
        "test",
    )  # fmt: skip
    network = DalleTransformer(config, K, 4, TextShape(1, 1))
    second = {name: torch.randn(t.shape) * 0.3 for name, t in network.state_dict().items()}
    torch.save({"state_dict": first}, folder / "stage1_last.ckpt")
    torch.save({"state_dict": second}, folder / "stage2_last.ckpt")
    return [
        folder / "stage1_last.ckpt", folder / "stage2_last.ckpt",
        folder / "tokenizer" / "bpe-16k-vocab.json", folder / "tokenizer" / "bpe-16k-merges.txt",
    ], second, made  # fmt: skip


@pytest.mark.slow
def test_mindalle(t2i):
    files, second, made = mindalle(t2i.work / "1.3B")
    settings = sets("image_size=8", "transformer.width=16", "transformer.heads=2")
    line = ["import", "--model", "dalle", "--preset", "mindalle", *settings, "--out"]
    done = t2i(*line, "run", *files)
    assert (done.returncode, done.stderr) == (0, "")
    image = sampled(t2i, "run", "p")
    assert image == sampled(t2i, "run", "q", "--guidance", 1)
    assert image != sampled(t2i, "run", "r", "--guidance", 5)
    done = t2i(*line, "other", *files[:3])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "minDALL-E is four files" in done.stderr
    model = load(t2i.work / "run")
    made.add_special_tokens(["[PAD]"])
    made.enable_padding(length=LENGTH, pad_id=made.token_to_id("[PAD]"))
    made.enable_truncation(max_length=LENGTH)
    captions = ["A red CIRCLE", "", "two blue squares, ж! " * 5]
    tokens = model.text_encoder.encode(captions).extras["tokens"]
    assert tokens.tolist() == [made.encode(caption).ids for caption in captions]
    for name, tensor in model.generator.network.state_dict().items():
        assert torch.equal(tensor, second[name]), name
