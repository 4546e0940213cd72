"""The embedded text encoder: any text gives finite features; padding and batching change
nothing."""

import pytest
import torch
from hypothesis import given, settings

from t2i.core.errors import UserError
from t2i.core.io.json_files import write_json
from t2i.core.io.tensors import save_tensors
from t2i.plugins.encoders.words.config import WordsConfig, split
from t2i.plugins.encoders.words.encoder import PAD, START, UNKNOWN, build
from t2i.plugins.encoders.words.vocabulary import fit
from tests.plugins.encoders.caption_checks import CAPTIONS, check_independence, hostile

TEXTS = ["a red circle", "a blue square, below a red circle", "A RED star"]


@pytest.fixture(scope="module", params=[0, 3], ids=["alone", "neighbours"])
def encoder(request):
    torch.manual_seed(0)
    return build(
        fit(WordsConfig(width=16, max_words=8, neighbours=request.param), TEXTS), None
    ).eval()


def test_vocabulary_is_by_frequency_then_alphabet_and_bounded():
    assert fit(WordsConfig(), TEXTS).vocabulary == (
        "a",
        "red",
        "circle",
        ",",
        "below",
        "blue",
        "square",
        "star",
    )
    assert fit(WordsConfig(vocabulary_size=2), TEXTS).vocabulary == ("a", "red")
    assert fit(WordsConfig(vocabulary=("x",)), TEXTS).vocabulary == ("x",)


def test_tokens(encoder):
    index = {word: 3 + i for i, word in enumerate(encoder.config.vocabulary)}
    tokens = encoder.tokens(["a RED zebra!", ""])
    assert tokens.tolist() == [
        [START, index["a"], index["red"], UNKNOWN, UNKNOWN],
        [START, PAD, PAD, PAD, PAD],
    ]


@settings(max_examples=60, deadline=None)
@given(captions=CAPTIONS)
def test_any_text_is_finite_and_independent_of_its_batch(encoder, captions):
    check_independence(encoder, captions)


@hostile
def test_hostile_text_is_cut_and_encoded(encoder, caption):
    features = encoder.encode([caption])
    assert features.words.shape[1] <= 9
    assert features.words.isfinite().all()


def test_only_the_beginning_of_a_long_caption_is_read():
    assert split("a b c d", 2) == ["a", "b"]


def test_word_order_and_words_matter(encoder):
    a, b, c = encoder.encode(["red below blue", "blue below red", "red below red"]).sentence
    assert not torch.allclose(a, b)
    assert not torch.allclose(a, c)


def test_every_parameter_is_trained(encoder):
    text = encoder.encode(TEXTS)
    (text.sentence.square().sum() + (text.words**3).sum()).backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    encoder.zero_grad()


def test_no_caption_is_the_empty_caption(encoder):
    null = encoder.null(2)
    assert null.mask.tolist() == [[True], [True]]
    torch.testing.assert_close(null.sentence[0], encoder.encode([""]).sentence[0])


@pytest.mark.parametrize(
    "given_", [{"width": 10}, {"vocabulary": ("a", "a")}, {"neighbours": 4}, {"layers": 10**9}]
)
def test_senseless_settings_are_refused(given_):
    with pytest.raises(UserError, match="encoder"):
        WordsConfig.of(given_, "encoder")


# --- pretrained weights ---------------------------------------------------------------------------


@pytest.fixture
def folder(encoder, tmp_path):
    config = encoder.config.model_dump(mode="json", exclude={"weights", "frozen"})
    write_json(tmp_path / "config.json", config)
    half = {name: tensor.half() for name, tensor in encoder.state_dict().items()}
    save_tensors(tmp_path / "model.safetensors", half)
    return tmp_path


def test_pretrained_weights_bring_sizes_and_vocabulary(encoder, folder):
    wanted = WordsConfig(width=128, weights=str(folder), frozen=True)
    config = fit(wanted, ["other words"])
    assert (config.width, config.vocabulary) == (16, encoder.config.vocabulary)
    loaded = build(config, None)
    assert not loaded.trainable
    expected = encoder.encode(TEXTS)
    found = loaded.encode(TEXTS)
    torch.testing.assert_close(found.sentence, expected.sentence, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(found.words, expected.words, rtol=1e-2, atol=1e-2)
    assert build(WordsConfig(weights=str(folder)), None).trainable


def test_a_saved_model_needs_the_pretrained_folder_no_more(encoder, folder, tmp_path):
    config = fit(WordsConfig(weights=str(folder)), [])
    for file in folder.iterdir():
        file.unlink()
    assert build(config, tmp_path).config == config


def test_weights_that_are_missing_or_another_kind_are_refused(folder):
    with pytest.raises(UserError, match="no such folder, and no data set ships weights"):
        fit(WordsConfig(weights="shapes-clap"), [])
    write_json(folder / "config.json", {"width": 16})
    with pytest.raises(UserError, match="'layers' is missing: this is no encoder"):
        fit(WordsConfig(weights=str(folder)), [])
    with pytest.raises(ValueError, match="frozen: an encoder with random weights"):
        WordsConfig(frozen=True)
