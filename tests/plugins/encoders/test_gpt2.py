"""The tokens of GPT-2's kind: bytes and merges, padding, and a model that keeps its tokenizer."""

import itertools
import json

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer

from t2i.core.errors import UserError
from t2i.plugins.common.text.tokens import TOKENS
from t2i.plugins.encoders.gpt2.config import GPT2TokensConfig
from t2i.plugins.encoders.gpt2.encoder import build

END = "<|endoftext|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer of a few merges, in the two files of GPT-2."""
    place = tmp_path_factory.mktemp("gpt2")
    made = ByteLevelBPETokenizer()
    texts = ["a red circle", "a red square", "a blue circle", "two red circles"]
    made.train_from_iterator(texts, vocab_size=270, min_frequency=1, show_progress=False)
    made.save_model(str(place))
    vocabulary = json.loads((place / "vocab.json").read_text())
    vocabulary[END] = len(vocabulary)
    (place / "vocab.json").write_text(json.dumps(vocabulary))
    return place


def encoder(folder, **settings):
    config = GPT2TokensConfig.of({"weights": str(folder), "length": 8, **settings}, "test")
    return build(config, None)


def merged(folder, text):
    """The tokens of a text of letters and spaces, by hand: the earliest merge first."""
    vocabulary = json.loads((folder / "vocab.json").read_text())
    lines = (folder / "merges.txt").read_text().splitlines()
    ranks = {tuple(line.split()): i for i, line in enumerate(lines) if not line.startswith("#")}
    numbers = []
    for i, word in enumerate(text.split(" ")):
        parts = [*("\u0120" if i else ""), *word]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: ranks.get(pair, 10**9))
            if best not in ranks:
                break
            at = pairs.index(best)
            parts[at : at + 2] = ["".join(best)]
        numbers += [vocabulary[part] for part in parts]
    return numbers


def test_tokens_are_merged_bytes_without_marks_padded_with_the_end(folder):
    reader = encoder(folder)
    features = reader(["a Red circle", ""])
    own = merged(folder, "a red circle")
    end = json.loads((folder / "vocab.json").read_text())[END]
    assert features.extras[TOKENS].tolist() == [own + [end] * (8 - len(own)), [end] * 8]
    assert features.mask.sum(1).tolist() == [len(own), 0]
    assert torch.equal(features.words[..., 0] > 0, features.mask)
    assert features.captions == ("a Red circle", "")
    assert torch.equal(reader.null(2).extras[TOKENS], torch.full((2, 8), end))


def test_capitals_are_kept_at_wish_and_long_captions_are_cut(folder):
    kept = encoder(folder, lower=False)
    assert kept(["A"]).extras[TOKENS][0, 0] != encoder(folder)(["A"]).extras[TOKENS][0, 0]
    long = "red " * 40
    reader = encoder(folder)
    assert reader([long]).mask.all()
    assert reader.reading(long).total > reader.reading(long).limit == 8
    assert reader(["\ud83d \U0001f600", "x" * 10**6]).mask.any(1).all()


def test_a_saved_tokenizer_is_read_and_a_folder_without_one_is_refused(folder, tmp_path):
    reader = encoder(folder)
    reader.save_assets(tmp_path)
    again = build(reader.config, tmp_path)
    captions = ["two red circles", "a\u00e9"]
    assert torch.equal(again(captions).extras[TOKENS], reader(captions).extras[TOKENS])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="text encoder 'gpt2'"):
        encoder(tmp_path / "empty")
