"""TextFeatures: choosing, padding, joining; the defaults for encoders with only one kind of
vector."""

import pytest
import torch

from t2i.core.interfaces.text import TextFeatures


def features(lengths, width=3, longest=None, start=0.0):
    longest = longest or max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    words = start + torch.arange(len(lengths) * longest * width).float().view(
        len(lengths), longest, width
    )
    return TextFeatures(
        words[:, 0], words * mask[..., None], mask, tuple(f"c{i}" for i in range(len(lengths)))
    )


def test_sentence_only_gives_one_word():
    sentence = torch.randn(2, 5)
    text = TextFeatures.of(sentence=sentence)
    assert torch.equal(text.words, sentence[:, None])
    assert text.mask.tolist() == [[True], [True]]


def test_words_only_gives_the_masked_mean():
    words = torch.tensor([[[1.0], [3.0], [100.0]]])
    text = TextFeatures.of(words=words, mask=torch.tensor([[True, True, False]]))
    assert text.sentence.tolist() == [[2.0]]
    empty = TextFeatures.of(words=words, mask=torch.zeros(1, 3, dtype=torch.bool))
    assert empty.sentence.tolist() == [[0.0]]
    with pytest.raises(ValueError, match="sentence or words"):
        TextFeatures.of()


def test_where_drops_captions_of_other_lengths():
    text, null = features([4, 2]), features([1, 1], start=1000.0)
    mixed = text.where(torch.tensor([True, False]), null)
    assert mixed.mask.sum(1).tolist() == [4, 1]
    assert torch.equal(mixed.words[0], text.words[0])
    assert torch.equal(mixed.words[1, 0], null.words[1, 0])
    assert torch.equal(mixed.sentence[1], null.sentence[1])
    assert mixed.captions == ("c0", "c1")


def test_cat_pads_and_slices_back():
    a, b = features([2]), features([5, 1], start=7.0)
    joined = TextFeatures.cat([a, b])
    assert joined.words.shape == (3, 5, 3)
    assert not joined.mask[0, 2:].any()
    assert torch.equal(joined[1:].words, b.words)
    assert joined[[2]].captions == ("c1",)
    assert torch.equal(joined[torch.tensor([0])].sentence, a.sentence)
