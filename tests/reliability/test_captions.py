"""Captions that nobody would write, through every text encoder and everything that writes captions
down: a finite embedding or a clear error; never the name of a file, never a command to the
terminal."""

import json
import re
import unicodedata

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
)

from t2i.benchmarks.report.markup import text as _text
from t2i.cli.main import main
from t2i.core.errors import UserError
from t2i.core.io.terminal import printable
from t2i.core.models.prompts import read_prompts
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from tests.plugins.models.pipelines import t5

CAPTIONS = {
    "empty": "",
    "spaces": " \t\r\n ",
    "a megabyte of words": "a red circle " * 80_000,
    "a megabyte without a space": "x" * 2**20,
    "a megabyte of spaces": " " * 2**20,
    "NUL": "a\0b",
    "lone surrogate": "a \ud800 b \udfff",
    "undecodable bytes": b"caf\xe9".decode("utf-8", "surrogateescape"),
    "right to left": "\u202ea red\u202c \u05d0\u05d1\u200f \u0627\u0644",
    "path": "../../x",
    "root": "/etc/passwd",
    "terminal": "\x1b[2J\x1b]0;title\x07\x9b31m\x08",
    "markup": "[red]a[/red] [bold] [/] [link=x]",
    "html": "<script>alert('x')</script> & \"",
    "format": "%s {0} {x} $HOME `id`",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 "
    "\U0001f534",
    "combining": "a" + "\u0301" * 5000,
    "line ends": "a\nb\r\nc\u2028d\x85e",
    "noncharacters": "\ufffe\uffff\U0010ffff\ufeff",
    "numbers": "nan inf 1e999 -0",
}
MERGES = ["r e", "re d</w>"]


def clip_folder(folder):
    """CLIP's byte-pair tokenizer over ASCII, and tiny random weights."""
    characters = [chr(code) for code in range(33, 127)]
    words = [
        *characters,
        *(c + "</w>" for c in characters),
        "re",
        "red</w>",
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, projection_dim=8,
        num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1,
    )  # fmt: skip
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    return {"weights": str(folder)}


def t5_folder(folder):
    """T5's tokenizer over a few pieces, and tiny random weights."""
    for part in t5():
        part.save_pretrained(folder)
    return {"weights": str(folder)}


def bert_folder(folder):
    """BERT's tokenizer over a few pieces, and tiny random weights."""
    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "circle")
    BertTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=True
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=20,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return {"weights": str(folder)}


def gpt2_folder(folder):
    """GPT-2's tokenizer of all bytes, without merges of any use."""
    folder.mkdir()
    made = ByteLevelBPETokenizer()
    made.train_from_iterator(["a red circle"], vocab_size=260, show_progress=False)
    made.save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary["<|endoftext|>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return {"weights": str(folder), "length": 8}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Every built-in text encoder, small, with random weights."""
    vocabulary = {"vocabulary": ["a", "red", "circle"]}
    place = tmp_path_factory.mktemp("weights")
    clip, t5 = clip_folder(place / "clip"), t5_folder(place / "t5")
    settings = {
        "words": {**vocabulary, "width": 16, "heads": 2}, "none": {},
        "char-cnn-rnn": {"width": 16, "train": True},
        "damsm": {**vocabulary, "width": 16, "embedding": 16},
        "clip": clip, "t5": t5, "bert": bert_folder(place / "bert"),
        "bpe": {"length": 8, "vocabulary": ["[PAD]", "[UNK]", "a</w>", "r", "e", "d</w>"]},
        "gpt2": gpt2_folder(place / "gpt2"),
        "joined": {"beside": [{"name": "clip", **clip}], "after": {"name": "t5", **t5}},
    }  # fmt: skip
    assert set(settings) == {spec.name for spec in registry().encoders}
    made = {}
    for name, chosen in settings.items():
        spec = registry().encoders[name]
        made[name] = import_object(spec.build)(
            import_object(spec.config).of(chosen, name), None
        ).eval()
    return made


@pytest.mark.parametrize(
    "name",
    ["words", "none", "char-cnn-rnn", "damsm", "clip", "t5", "bert", "bpe", "gpt2", "joined"],
)
def test_every_encoder_makes_a_finite_embedding_of_any_caption(encoders, name):
    """One by one and in one batch, where a wild caption changes no other's features."""
    encoder = encoders[name]
    with torch.no_grad():
        calm = encoder.encode(["a red circle"])
        for what, caption in CAPTIONS.items():
            text = encoder.encode([caption])
            assert text.sentence.isfinite().all(), what
            assert text.words.isfinite().all(), what
            padding = name == "gpt2" and not caption.strip()  # it has no token of its own
            assert text.mask.any() or padding, what
        text = encoder.encode([*CAPTIONS.values(), "a red circle"])
    assert len(text) == len(CAPTIONS) + 1
    assert torch.allclose(text.sentence[-1], calm.sentence[0], atol=1e-5)


def harmless(text):
    """Whether a terminal can do nothing with it but show it: no control or formatting character but
    the line's end."""
    return not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"]


@pytest.fixture
def run(toy, tmp_path, monkeypatch, capfd):
    """A finished run of the toy model."""
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    assert main(["train", "--model", "toy", "--out", str(tmp_path / "run")]) == 0
    capfd.readouterr()
    return tmp_path / "run"


def test_samples_of_any_caption_are_files_by_number_and_lines_of_json(run, tmp_path, capfd):
    captions = [caption for what, caption in CAPTIONS.items() if "megabyte" not in what]
    words = [word for caption in captions for word in ("-p", caption)]
    for more in ((), ("--json",)):
        out = tmp_path / f"out{len(more)}"
        assert main(["sample", "--run", str(run), *words, "--out", str(out), *more]) == 0
        said = capfd.readouterr()
        assert harmless(said.out + said.err)
        names = sorted(path.name for path in out.rglob("*"))
        assert names == [
            *(f"{i:04}-000.png" for i in range(len(captions))),
            "grid.png",
            "samples.jsonl",
        ]
        data = (out / "samples.jsonl").read_bytes()
        assert data.isascii()
        assert [json.loads(line)["prompt"] for line in data.splitlines()] == captions


def test_a_file_of_wild_prompts(run, tmp_path, capfd):
    """A megabyte and terminal commands in a file; and files of bytes that are no text."""
    told = {
        what: c for what, c in CAPTIONS.items() if what != "a megabyte of words"
    }  # the toy takes its time with it
    lines = [c for c in told.values() if c.strip() and not re.search("[\ud800-\udfff\n\r\0]", c)]
    path = tmp_path / "\x1b[2Jprompts.txt"
    path.write_text("\n".join(lines), "utf-8")
    assert read_prompts(path) == [line.strip() for line in lines]
    assert (
        main(["sample", "--run", str(run), "--prompts", str(path), "--out", str(tmp_path / "out")])
        == 0
    )
    assert harmless(capfd.readouterr().err)
    path.write_bytes(b"a\xe9b")
    assert main(["sample", "--run", str(run), "--prompts", str(path)]) == 2
    said = capfd.readouterr().err
    assert harmless(said)
    assert "\\x1b[2Jprompts.txt: not UTF-8" in said
    path.write_bytes("no mark".encode("utf-16-le"))
    with pytest.raises(UserError, match=r"zero bytes; if it is UTF-16, save it as UTF-8$"):
        read_prompts(path)
    path.write_bytes("ein Café\nzwei".encode("utf-16"))
    assert read_prompts(path) == ["ein Café", "zwei"]
    (tmp_path / "empty").write_text(" \n\n")
    with pytest.raises(UserError, match="holds no prompt"):
        read_prompts(tmp_path / "empty")


@pytest.mark.parametrize("what", CAPTIONS)
def test_what_is_printed_or_reported_is_harmless(what):
    caption = CAPTIONS[what]
    assert harmless(printable(caption))
    html = _text(caption)
    assert harmless(html)
    assert not re.search("[<>\"']", html)
    html.encode("utf-8")


@pytest.mark.parametrize("option", ["--model", "--run", "--out", "--sampler", "--config"])
def test_wild_arguments_are_one_harmless_line(run, tmp_path, capfd, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    wild = "\x1b[2J[red]\u202e/../x"
    command = (
        ["sample", "-p", "x", "--run", str(run)]
        if option in ("--sampler",)
        else ["train", "--model", "toy"]
    )
    if option == "--run":
        command = ["sample", "-p", "x"]
    if option == "--out":
        (tmp_path / "file").write_text("x")
        wild = f"file/{wild}"
    assert main([*command, option, wild]) == 2
    said = capfd.readouterr()
    assert harmless(said.out + said.err), said
    assert said.err.splitlines()[-1].startswith("error: ")


@pytest.mark.usefixtures("toy")
def test_training_on_wild_captions_writes_no_command_to_the_terminal(tmp_path, capfd, monkeypatch):
    """They are in the vocabulary, the log, the images' listing and the command that is
    suggested."""
    import sys

    data = sys.modules["t2i_toy"].data
    get = data.__getitem__
    wild = tuple(caption for what, caption in CAPTIONS.items() if "megabyte" not in what)

    def replaced(self, index):
        example = get(self, index)
        return type(example)(example.image, wild, example.key + "\x1b[2J", example.extras)

    monkeypatch.setattr(data, "__getitem__", replaced)
    monkeypatch.setattr(data, "vocabulary", lambda self: list(wild))
    code = main(
        [
            "train",
            "--model",
            "toy",
            "--out",
            str(tmp_path / "run\x1b[2J"),
            "--set",
            "sample_every=2",
        ]
    )
    said = capfd.readouterr()
    assert code == 0, said.err
    assert harmless(said.out + said.err), said
    listing = (tmp_path / "run\x1b[2J" / "samples" / "captions.json").read_bytes()
    assert json.loads(listing)["captions"][0] == wild[0]
