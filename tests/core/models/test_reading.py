"""Warnings of words that a model does not know, and of captions that are cut."""

import json

import pytest

from t2i.core.interfaces.text import Reading
from t2i.core.models.reading import example_captions, warnings_of
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry


def encoder(name, **settings):
    spec = registry().encoders[name]
    config = registry().encoders.choose(name, settings).config
    return import_object(spec.build)(config, None)


def words(**more):
    return encoder("words", width=8, heads=1, layers=1, vocabulary=("a", "red", "circle"), **more)


def test_unknown_words_are_counted_and_named_with_examples():
    captions = ["a photo of a cat", "a red circle"]
    (said,) = warnings_of(words(), captions, ["a red circle"])
    assert said == (
        "3 of 5 words of 'a photo of a cat' are unknown to this model: photo, of, cat; "
        "it was trained on captions such as 'a red circle'"
    )
    assert warnings_of(words(), ["a RED circle"]) == []


def test_many_captions_give_one_sentence():
    captions = [f"a {i} x{i}" for i in range(30)]
    (said,) = warnings_of(words(), captions)
    assert said.startswith(
        "60 words of 30 captions, such as 'a 0 x0', are unknown to this model: 0, x0, 1"
    )
    assert said.endswith(", ...")


def test_an_empty_caption_and_a_cut_one_are_told():
    said = warnings_of(words(max_words=4), ["", "a red circle a red circle"])
    assert said == [
        "an empty caption: its images are of anything (unconditional)",
        "'a red circle a red circle' is cut: of its 6 words this model reads the first 4 words",
    ]
    long = "red " * 100_000
    (cut,) = warnings_of(words(), [long])
    assert "of its 100000 words" in cut
    assert len(cut) < 200


def test_damsm_skips_what_it_does_not_know():
    made = encoder("damsm", width=8, embedding=4, vocabulary=("bird", "red", "caf"), max_words=2)
    (said,) = warnings_of(made, ["red Straße bird"])
    assert said == "1 of 3 words of 'red Straße bird' are unknown to this model: straße"
    assert warnings_of(made, ["caf\u00e9 red"]) == []  # it drops the accent, as the authors do
    (cut,) = warnings_of(made, ["red bird red"])
    assert "of its 3 words this model reads the first 2 words" in cut


def test_letters_that_char_cnn_rnn_has_not():
    made = encoder("char-cnn-rnn")
    (said,) = warnings_of(made, ["ein Gr\u00fcnfink"])
    assert said == "1 of 12 characters of 'ein Gr\u00fcnfink' are unknown to this model: \u00fc"
    (cut,) = warnings_of(made, ["a" * 300])
    assert "of its 300 characters this model reads the first 201 characters" in cut


def test_a_model_without_text_says_so():
    assert warnings_of(encoder("none"), ["a cat"]) == [
        "this model reads no captions: what they say has no effect"
    ]


class Silent:
    def reading(self, caption):
        return None


class Tokens:
    def reading(self, caption):
        return Reading("tokens", 80, (), 77)


def test_an_encoder_that_cannot_tell_is_silent_and_tokens_are_counted():
    assert warnings_of(Silent(), ["a cat"]) == []
    (said,) = warnings_of(Tokens(), ["a cat"])
    assert said == "'a cat' is cut: of its 80 tokens this model reads the first 77 tokens"


def test_examples_are_read_from_the_run(tmp_path):
    assert example_captions(tmp_path / "no") == []
    (tmp_path / "run" / "samples").mkdir(parents=True)
    listing = tmp_path / "run" / "samples" / "captions.json"
    listing.write_text(json.dumps({"captions": ["a red circle", "a red circle", "b", "c"]}))
    step = tmp_path / "run" / "checkpoints" / "step-3"
    for place in (tmp_path / "run", tmp_path / "run" / "model", step):
        assert example_captions(place) == ["a red circle", "b"]


@pytest.mark.parametrize("text", ["[]", "{", '{"captions": 3}', "null"])
def test_a_damaged_list_of_examples_is_no_error(tmp_path, text):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "captions.json").write_text(text)
    assert example_captions(tmp_path) == []
