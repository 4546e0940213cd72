"""The `damsm` text encoder: a bidirectional LSTM on true lengths, with the data set's words or the
authors'."""

import pickle

import pytest
import torch
from hypothesis import given, settings

from t2i.core.errors import UserError
from t2i.core.registry.tables import registry
from t2i.plugins.encoders.damsm.config import DamsmConfig, split
from t2i.plugins.encoders.damsm.encoder import END, build
from t2i.plugins.encoders.damsm.weights import fit
from tests.plugins.encoders.caption_checks import CAPTIONS, check_independence, hostile

TEXTS = ["a red circle", "a blue square, below a red circle", "A RED star"]
KEYS = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return build(fit(DamsmConfig(embedding=6, width=8, max_words=7), TEXTS), None).eval()


def authors_files(folder, words=("red", "bird", "wing"), embedding=5, width=4):
    """text_encoder.pth and captions.pickle in the form of the authors', with random weights."""
    torch.manual_seed(1)
    half = width // 2
    shapes = {"weight_ih_l0": (4 * half, embedding), "weight_hh_l0": (4 * half, half)}
    state = {"encoder.weight": torch.randn(1 + len(words), embedding)}
    for suffix in ("", "_reverse"):
        for key in KEYS:
            state[f"rnn.{key}{suffix}"] = torch.randn(shapes.get(key, (4 * half,)))
    torch.save(state, folder / "text_encoder.pth")
    numbered = dict(enumerate(["<end>", *words]))
    with open(folder / "captions.pickle", "wb") as file:
        pickle.dump(
            [[[1, 2]], [[2, 3]], numbered, {word: i for i, word in numbered.items()}],
            file,
            protocol=2,
        )
    return state


# --- words ----------------------------------------------------------------------------------------


def test_words_are_cut_as_the_authors_cut_them():
    assert split("A bird's Red-tipped wing; naïve 3x!", 20) == [
        "a",
        "bird",
        "s",
        "red",
        "tipped",
        "wing",
        "nave",
        "3x",
    ]
    assert split("\ufffd\ufffd ... 鳥", 20) == []


def test_unknown_words_are_left_out_and_a_caption_without_words_ends_at_once(encoder):
    index = {word: 1 + i for i, word in enumerate(encoder.config.vocabulary)}
    tokens, lengths = encoder.tokens(["a RED zebra!", "", "zebra"])
    assert tokens.tolist() == [[index["a"], index["red"]], [END, END], [END, END]]
    assert lengths.tolist() == [2, 1, 1]
    tokens, lengths = encoder.tokens(["zebra " * 3 + "red " * 9])
    assert lengths.tolist() == [7]
    assert encoder.encode([""]).mask.tolist() == [[True]]


def test_vocabulary_is_by_frequency_then_alphabet_and_bounded():
    assert fit(DamsmConfig(), TEXTS).vocabulary == (
        "a",
        "red",
        "circle",
        "below",
        "blue",
        "square",
        "star",
    )
    assert fit(DamsmConfig(vocabulary_size=2), TEXTS).vocabulary == ("a", "red")
    assert fit(DamsmConfig(vocabulary=("x",)), TEXTS).vocabulary == ("x",)


# --- the network ----------------------------------------------------------------------------------


def direction(state, x, suffix):
    """One direction of an LSTM, step by step: outputs (L, half)."""
    w_x, w_h, b_x, b_h = (state[f"lstm.{key}{suffix}"] for key in KEYS)
    h = c = torch.zeros(w_h.shape[1])
    outputs = []
    for row in x:
        i, f, g, o = (w_x @ row + b_x + w_h @ h + b_h).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs)


def test_features_are_the_lstms_at_each_captions_own_length(encoder):
    state, features = encoder.state_dict(), encoder.encode(TEXTS)
    for i, caption in enumerate(TEXTS):
        numbers, (length,) = encoder.tokens([caption])
        x = state["embedding.weight"][numbers[0]]
        forward, backward = direction(state, x, ""), direction(state, x.flip(0), "_reverse").flip(0)
        torch.testing.assert_close(features.words[i, :length], torch.cat([forward, backward], 1))
        torch.testing.assert_close(features.sentence[i], torch.cat([forward[-1], backward[0]]))
        assert features.mask[i].tolist() == [j < length for j in range(features.words.shape[1])]
        assert not features.words[i, length:].any()


def test_parameters_are_the_papers():
    vocabulary = tuple(map(str, range(5449)))  # CUB's, as released
    network = build(DamsmConfig(vocabulary=vocabulary), None)
    assert sum(p.numel() for p in network.parameters()) == 5450 * 300 + 2 * 4 * 128 * (
        300 + 128 + 2
    )
    assert tuple(network.shape) == (256, 256)


@settings(max_examples=40, deadline=None)
@given(captions=CAPTIONS)
def test_any_text_is_finite_and_independent_of_its_batch(encoder, captions):
    check_independence(encoder, captions)


@hostile
def test_hostile_text_is_cut_and_encoded(encoder, caption):
    features = encoder.encode([caption])
    assert features.words.shape[1] <= 7
    assert features.words.isfinite().all()


def test_embeddings_are_dropped_in_training_only(encoder):
    assert torch.equal(encoder.encode(TEXTS).words, encoder.encode(TEXTS).words)
    encoder.train()
    assert not torch.equal(encoder.encode(TEXTS).words, encoder.encode(TEXTS).words)
    encoder.eval()


def test_every_parameter_is_trained(encoder):
    text = encoder.encode(TEXTS)
    (text.sentence.square().sum() + (text.words**3).sum()).backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    encoder.zero_grad()


# --- the authors' files ---------------------------------------------------------------------------


def test_the_authors_files_give_a_frozen_encoder(tmp_path):
    state = authors_files(tmp_path)
    weights, captions = str(tmp_path / "text_encoder.pth"), str(tmp_path / "captions.pickle")
    config = fit(
        DamsmConfig(embedding=5, width=4, weights=weights, captions=captions), ["not", "asked"]
    )
    assert config.vocabulary == ("red", "bird", "wing")
    loaded = build(config, None)
    assert not loaded.trainable
    assert torch.equal(loaded.embedding.weight, state["encoder.weight"])
    assert torch.equal(loaded.lstm.bias_hh_l0_reverse, state["rnn.bias_hh_l0_reverse"])
    (tmp_path / "text_encoder.pth").unlink()
    assert not build(config, tmp_path).trainable  # a saved model needs the file no more
    with pytest.raises(UserError, match=r"text_encoder\.pth"):
        build(config, None)


def test_files_that_do_not_fit_are_refused(tmp_path):
    authors_files(tmp_path)
    weights, captions = tmp_path / "text_encoder.pth", tmp_path / "captions.pickle"
    config = DamsmConfig(embedding=5, width=4, weights=str(weights), vocabulary=("red", "bird"))
    counts = r"text_encoder\.pth.* vectors of 4 words, the vocabulary has {}, the end"
    with pytest.raises(UserError, match=counts.format(3)):
        build(config, None)
    for words in (0, 2, 9):  # the captions of another data set
        numbered = dict(enumerate(["<end>", *(f"word{i}" for i in range(words))]))
        captions.write_bytes(pickle.dumps([[], [], numbered, {}], protocol=2))
        given = DamsmConfig(embedding=5, width=4, weights=str(weights), captions=str(captions))
        with pytest.raises(UserError, match=rf"with \S+captions\.pickle.*{words + 1}, the end"):
            build(fit(given, []), None)
    with pytest.raises(UserError, match=r"captions\.pickle"):
        registry().encoders.choose("damsm", {"weights": str(weights)}, "text encoder")
    for document in ([[], []], [[], [], {0: "<end>", 2: "red"}, {}], {"red": 1}):
        captions.write_bytes(pickle.dumps(document, protocol=2))
        with pytest.raises(
            UserError, match=r"captions\.pickle: it does not hold the authors' four parts"
        ):
            fit(DamsmConfig(captions=str(captions)), [])


def test_a_frozen_encoder_of_ones_own_stays_frozen():
    assert not build(DamsmConfig(vocabulary=("red",), frozen=True), None).trainable
    assert build(DamsmConfig(vocabulary=("red",)), None).trainable


@pytest.mark.parametrize("given_", [{"width": 7}, {"vocabulary": ("a", "a")}])
def test_senseless_settings_are_refused(given_):
    with pytest.raises(UserError, match="encoder"):
        DamsmConfig.of(given_, "encoder")
