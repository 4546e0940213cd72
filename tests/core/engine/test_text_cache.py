"""Features of frozen encoders: what is kept is what would be computed, and nothing depends on what
was kept."""

from dataclasses import replace

import torch

from t2i.core.engine.text_cache import TextCache
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape


class Letters(TextEncoder):
    """A vector a letter; the sentence is a product over the whole batch's width, so that its last
    bits may vary."""

    def __init__(self):
        super().__init__()
        self.shape = TextShape(4, 4)
        self.table = torch.nn.Embedding(128, 4)
        self.asked = []

    def encode(self, captions):
        self.asked.append(tuple(captions))
        length = max(1, *map(len, captions))
        tokens = torch.tensor(
            [[ord(c) for c in caption.ljust(length, "\0")] for caption in captions]
        )
        mask = tokens != 0
        mask[:, 0] = True
        return replace(
            TextFeatures.of(words=self.table(tokens) * mask[..., None], mask=mask),
            captions=tuple(captions),
        )

    def null(self, n):
        return self.encode(["~"] * n)


def test_a_cached_batch_is_the_encoders_batch():
    encoder = Letters()
    cache = TextCache(encoder, small=0)
    cache(["abc", "a much longer caption"])
    got, want = cache(["de", "abc", "", "abc"]), encoder.encode(["de", "abc", "", "abc"])
    assert got.captions == want.captions
    assert torch.equal(got.mask, want.mask)
    assert torch.allclose(got.words, want.words)
    assert torch.allclose(got.sentence, want.sentence)
    assert not got.words.requires_grad


def test_each_caption_is_encoded_once_and_by_itself():
    encoder = Letters()
    cache = TextCache(encoder, small=0)
    for captions in (["a", "b", "a"], ["b", "c"], ["c", "a"]):
        cache(captions)
    assert encoder.asked == [("a",), ("b",), ("c",)]


def test_the_least_recently_used_caption_goes_first():
    encoder = Letters()
    one = 16 + 16 + 1  # bytes: a sentence and a word of four floats, a mask
    cache = TextCache(encoder, limit=2 * one, small=0)
    for caption in ("a", "b", "a", "c", "a", "b"):
        cache([caption])
    assert encoder.asked == [("a",), ("b",), ("c",), ("b",)]


def test_a_small_encoder_is_asked_each_time():
    encoder = Letters()
    cache = TextCache(encoder)
    cache(["a", "b"])
    assert not cache(["a", "b"]).words.requires_grad
    assert encoder.asked == [("a", "b"), ("a", "b")]


def test_no_caption_is_encoded_once_and_given_as_often_as_asked():
    encoder = Letters()
    cache = TextCache(encoder)
    assert torch.equal(cache.null(3).sentence, encoder.encode(["~"] * 3).sentence)
    assert cache.null(2).captions == ("~", "~")
    assert encoder.asked == [("~",), ("~",) * 3]
