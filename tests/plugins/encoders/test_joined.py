"""The `joined` encoder: features of several encoders side by side and one after the other."""

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.models.weights import load_state, owned_tensors
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from tests.plugins.models.pipelines import clip, t5

CAPTIONS = ["a red bird", "", "blue"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Settings of two CLIPs and a T5."""
    place = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    made = {"one": clip(place / "w", 12), "two": clip(place / "v", 8, hidden_size=24), "t5": t5(48)}
    for name, (network, words) in made.items():
        network.save_pretrained(place / name)
        words.save_pretrained(place / name)
    return [
        {"name": "clip", "weights": str(place / "one"), "attend_padding": True},
        {"name": "clip", "weights": str(place / "two")},
        {"name": "t5", "weights": str(place / "t5")},
    ]


def built(assets=None, **settings):
    spec = registry().encoders["joined"]
    return import_object(spec.build)(import_object(spec.config).of(settings, "test"), assets)


def alone(part):
    settings = {key: value for key, value in part.items() if key != "name"}
    choice = registry().encoders.choose(part["name"], settings)
    return registry().encoders.build(choice, None).encode(CAPTIONS)


def test_words_stand_side_by_side_and_one_after_the_other(parts):
    one, two, t5 = map(alone, parts)
    joined = built(beside=parts[:2], after=parts[2], width=50, zeros=3)
    text = joined.encode(CAPTIONS)
    assert tuple(joined.shape) == tuple(text.shape) == (12 + 8, 50)
    length, tail = 77, t5.words.shape[1]
    assert text.words.shape == (3, length + tail + 3, 50)
    assert torch.equal(text.words[:, :length, :16], one.words)
    assert torch.equal(text.words[:, : two.words.shape[1], 16:40], two.words)
    assert not text.words[:, :length, 40:].any()
    assert torch.equal(text.words[:, length : length + tail, :48], t5.words)
    assert not text.words[:, length + tail :].any()
    assert torch.equal(text.mask[:, length : length + tail], t5.mask)
    assert text.mask[:, :length].all()
    assert text.mask[:, -3:].all()
    assert torch.equal(text.sentence, torch.cat([one.sentence, two.sentence], 1))
    assert text.captions == tuple(CAPTIONS)


def test_the_mask_covers_what_one_of_them_reads(parts):
    text = built(beside=[parts[1], parts[1]]).encode(CAPTIONS)
    assert torch.equal(text.mask, alone(parts[1]).mask)
    assert not text.mask.all()


def test_the_last_sentence_and_zeros_for_no_caption(parts):
    joined = built(beside=parts[:2], sentence="last", empty="zeros")
    text, null = joined.encode([""]), joined.null(2)
    assert joined.shape.sentence == 8
    torch.testing.assert_close(text.sentence[0], alone(parts[1]).sentence[1])
    assert text.words.any()
    assert null.words.shape == (2, *text.words.shape[1:])
    assert not null.words.any()
    assert not null.sentence.any()
    assert torch.equal(null.mask[:1], text.mask)
    encoded = built(beside=parts[:2]).null(2)
    assert torch.equal(encoded.words[1], encoded.words[0])
    assert encoded.words.any()


def test_a_saved_encoder_loads_without_its_parts(parts, tmp_path):
    joined = built(beside=parts[:2], after=parts[2])
    joined.save_assets(tmp_path)
    gone = [{**part, "weights": "gone/away"} for part in parts]
    again = built(tmp_path, beside=gone[:2], after=gone[2])
    load_state(again, owned_tensors(joined), "test")
    assert torch.equal(again.encode(CAPTIONS).words, joined.encode(CAPTIONS).words)
    assert len([*owned_tensors(joined)]) == len({*owned_tensors(joined)})
    assert not again.trainable


def test_what_is_cut_is_that_of_the_longest_reader(parts):
    joined = built(beside=parts[:2], after=parts[2])
    assert joined.reading("a red bird").limit == 256
    assert built(beside=parts[:2]).reading("a red bird").limit == 77


def test_wrong_parts_are_refused(parts):
    cases = [
        ({"beside": [{"name": "nothing"}]}, "nothing"),
        ({"beside": [{"weights": "x"}]}, "the name of a text encoder"),
        ({"beside": [{"name": "joined"}]}, "cannot be joined itself"),
        ({"beside": [{"name": "clip", "weight": "x"}]}, "no setting is named 'weight'"),
        ({"beside": [{"name": "words"}]}, "'words' is fitted to a data set"),
        ({"beside": parts[:2], "width": 39}, "words of width 40"),
        ({"beside": []}, "beside"),
    ]
    for settings, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            built(**settings)
        assert "\n" not in str(caught.value)
