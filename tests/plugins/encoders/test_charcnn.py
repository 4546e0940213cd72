"""The char-cnn-rnn text encoder: what it reads, its three geometries worked out anew, and its
weights."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.models.loading import load_model
from t2i.core.models.model import Model
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.encoders.charcnn.config import ALPHABET, CharCnnRnnConfig
from t2i.plugins.encoders.charcnn.encoder import build

GEOMETRIES = [("gru", 512), ("rnn", 512), ("rnn", 256)]
CAPTIONS = [
    "this bird is red, with a well-formed beak!",
    "A LARGE yellow flower (with 10 petals) " * 9,
    "",
    "é\n",
]


def ports_state(recurrence, width, seed=0):
    """A state dict as ports of the authors' Torch 7 files to PyTorch write it, of random
    numbers."""
    shapes = {
        "conv1": (384, 70, 4),
        "conv2": (512, 384, 4),
        "conv3": (width, 512, 4),
        "emb_proj": (1024, width),
    }
    gates = ("", "_update", "_reset") if recurrence == "gru" else ("",)
    shapes |= {f"rnn.{way}{gate}": (width, width) for way in ("i2h", "h2h") for gate in gates}
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = (torch.rand(shape, generator=draw) - 0.5) * 0.15
        state[f"{name}.bias"] = (torch.rand(shape[0], generator=draw) - 0.5) * 0.15
    return state


def reference(state, caption):
    """One caption's vector, step by step."""
    x = torch.zeros(70, 201)
    for place, character in enumerate(caption.lower()[:201]):
        if character in ALPHABET:
            x[ALPHABET.rindex(character), place] = 1
    h = x[None]
    for n, pool in ((1, 3), (2, 3), (3, None)):
        h = F.conv1d(h, state[f"conv{n}.weight"], state[f"conv{n}.bias"])
        h = torch.where(h > 1e-6, h, torch.zeros(()))
        h = F.max_pool1d(h, pool) if pool else h
    gated = "rnn.i2h_update.weight" in state
    h = h if gated else F.max_pool1d(h, 3, 2)
    assert h.shape[2] == (18 if gated else 8)

    def mapped(name, v):
        return state[f"rnn.{name}.weight"] @ v + state[f"rnn.{name}.bias"]

    states = []
    for x_t in h[0].T:
        if not states:
            s = mapped("i2h", x_t).tanh() if gated else mapped("i2h", x_t).relu()
        elif gated:
            u = (mapped("i2h_update", x_t) + mapped("h2h_update", states[-1])).sigmoid()
            r = (mapped("i2h_reset", x_t) + mapped("h2h_reset", states[-1])).sigmoid()
            s = (1 - u) * states[-1] + u * (
                mapped("i2h", x_t) + mapped("h2h", r * states[-1])
            ).tanh()
        else:
            s = (mapped("i2h", x_t) + mapped("h2h", states[-1])).relu()
        states.append(s)
    return state["emb_proj.weight"] @ (sum(states) / len(states)) + state["emb_proj.bias"]


def saved(tmp_path, state, prefix=""):
    save_file(
        {prefix + name: value for name, value in state.items()}, tmp_path / "encoder.safetensors"
    )
    return str(tmp_path / "encoder.safetensors")


@pytest.mark.parametrize(("recurrence", "width"), GEOMETRIES)
def test_gives_the_authors_vectors(tmp_path, recurrence, width):
    state = ports_state(recurrence, width)
    path = saved(tmp_path, state, "module." if width == 256 else "")
    encoder = build(CharCnnRnnConfig(weights=path, recurrence=recurrence, width=width), None)
    assert not encoder.trainable
    features = encoder.encode(CAPTIONS)
    assert features.shape == encoder.shape == (1024, 1024)
    assert features.captions == tuple(CAPTIONS)
    assert torch.equal(features.words[:, 0], features.sentence)
    theirs = torch.stack([reference(state, caption) for caption in CAPTIONS])
    assert theirs.std(0).mean() > 1e-3
    torch.testing.assert_close(features.sentence, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("recurrence", "width", "parameters"), [
    ("gru", 512, 4_045_184), ("rnn", 512, 2_994_560), ("rnn", 256, 1_814_144),
])  # fmt: skip
def test_parameters_are_the_authors(recurrence, width, parameters):
    with torch.device("meta"):
        encoder = build(CharCnnRnnConfig(train=True, recurrence=recurrence, width=width), None)
    assert sum(p.numel() for p in encoder.parameters()) == parameters


def test_reads_201_characters_in_lower_case_and_leaves_the_places_of_others_empty():
    encoder = build(CharCnnRnnConfig(train=True), None)
    hot = encoder.one_hot(["Ab-\té ", "z" * 500])
    assert hot.shape == (2, 70, 201)
    assert hot[0, :, :7].sum(0).tolist() == [1, 1, 1, 0, 0, 1, 0]
    # The alphabet holds the hyphen twice; the authors' table of characters keeps its second place.
    assert [hot[0, :, i].argmax().item() for i in (0, 1, 2, 5)] == [0, 1, 59, 69]
    assert hot[1].sum() == 201


def test_without_weights_it_is_trained_or_says_what_to_do():
    scratch = build(CharCnnRnnConfig(train=True), None)
    assert scratch.trainable
    assert scratch.encode(["a", "b"]).sentence.requires_grad
    bare = build(CharCnnRnnConfig(), None)
    assert (bare.shape, bare.trainable, list(bare.parameters())) == ((1024, 1024), False, [])
    with pytest.raises(
        UserError,
        match=r"has no weights: import or train with --set encoder\.weights=FILE .* --features "
        r"FILE",
    ):
        bare.encode(["a"])


def test_weights_may_be_trained_further(tmp_path):
    state = ports_state("rnn", 256)
    config = CharCnnRnnConfig(
        weights=saved(tmp_path, state), train=True, recurrence="rnn", width=256
    )
    encoder = build(config, None)
    assert encoder.trainable
    assert torch.equal(encoder.network.project.weight, state["emb_proj.weight"])


def test_refuses_weights_that_do_not_fit(tmp_path):
    state = ports_state("rnn", 256)
    path = saved(tmp_path, state)
    with pytest.raises(
        UserError,
        match=r"another geometry: use --set encoder.recurrence=rnn --set encoder.width=256",
    ):
        build(CharCnnRnnConfig(weights=path), None)
    del state["conv1.bias"]
    with pytest.raises(
        UserError, match=r"encoder.safetensors does not fit the network: conv1.bias is missing"
    ):
        build(CharCnnRnnConfig(weights=saved(tmp_path, state), recurrence="rnn", width=256), None)
    with pytest.raises(UserError, match=r"none\.safetensors"):
        build(CharCnnRnnConfig(weights=str(tmp_path / "none.safetensors")), None)


@pytest.mark.parametrize("weights", [True, False])
def test_a_saved_model_needs_no_file_of_weights(tmp_path, weights):
    """Nor does one that was imported without: it is loaded, and draws from features alone."""
    from t2i.core.models.building import build as build_model

    state = ports_state("rnn", 256)
    encoder = {"name": "char-cnn-rnn", "recurrence": "rnn", "width": 256}
    if weights:
        encoder["weights"] = saved(tmp_path, state)
    config = resolve_config(
        "stackgan", overrides={"encoder": encoder}, sets=["gf=4", "df=2", "z_dim=2", "c_dim=2"]
    )
    model: Model = build_model(config)
    model.save(tmp_path / "model")
    (tmp_path / "encoder.safetensors").unlink(missing_ok=True)
    again = load_model(tmp_path / "model")
    assert again.generator.first.augment.linear.in_features == 1024
    if weights:
        assert torch.equal(
            again.text_encoder.encode(["x"]).sentence, model.text_encoder.encode(["x"]).sentence
        )
    else:
        with pytest.raises(UserError, match="has no weights"):
            again.sample(["a bird"])


def test_training_without_weights_is_refused_before_anything_is_written(tmp_path):
    from t2i.core.engine import train

    with pytest.raises(UserError, match="has no weights"):
        train(
            resolve_config("stackgan", overrides={"encoder": {"name": "char-cnn-rnn"}}),
            tmp_path / "run",
        )
    assert not (tmp_path / "run" / "config.json").exists()


def test_is_registered():
    assert registry().encoders["char-cnn-rnn"].fit is None
