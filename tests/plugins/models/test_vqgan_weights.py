"""The authors' transformers over VQGAN tokens: imported and sampled, or refused for a condition."""

import pytest
import torch
from torch.nn import functional as F

from t2i import load
from t2i.core.errors import UserError
from t2i.core.models.importing import import_weights
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.causal.prior import coordinates
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig
from t2i.plugins.models.vqgan.weights import load as load_weights

K, WIDTH, LAYERS, HEADS, N = 20, 8, 2, 2, 16
SETS = ["image_size=8", f"transformer.heads={HEADS}", f"transformer.width={WIDTH}"]
SIZES = {"channels": 32, "multiples": (1, 1), "blocks": 1, "attention": (1,), "latent_channels": 6}


def vqgan():
    torch.manual_seed(5)
    config = TokenizerConfig.of({"vocabulary": K, "code_width": 4, "vqgan": SIZES}, "test")
    return ImageTokenizer(config, 8).eval()


def transformer(reached, block):
    """GPT's tensors by taming's names, all random; vectors of positions that were reached."""
    shapes = {
        "tok_emb.weight": (K, WIDTH), "ln_f.weight": (WIDTH,), "ln_f.bias": (WIDTH,),
        "head.weight": (K, WIDTH),
    }  # fmt: skip
    for i in range(LAYERS):
        for name in ("ln1", "ln2"):
            shapes |= {f"blocks.{i}.{name}.weight": (WIDTH,), f"blocks.{i}.{name}.bias": (WIDTH,)}
        for name, out, into in (
            *((f"attn.{part}", WIDTH, WIDTH) for part in ("key", "query", "value", "proj")),
            ("mlp.0", 4 * WIDTH, WIDTH), ("mlp.2", WIDTH, 4 * WIDTH),
        ):  # fmt: skip
            shapes |= {f"blocks.{i}.{name}.weight": (out, into), f"blocks.{i}.{name}.bias": (out,)}
    state = {name: torch.randn(shape) * 0.5 for name, shape in shapes.items()}
    state["pos_emb"] = torch.zeros(1, block, WIDTH)
    state["pos_emb"][:, :reached] = torch.randn(1, reached, WIDTH)
    return state


def logits_of(w, ids):
    """Logits of GPT at all positions of ids (B, L), as minGPT computes them."""

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        return F.layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"])

    length = ids.shape[1]
    x = w["tok_emb.weight"][ids] + w["pos_emb"][:, :length]
    future = torch.ones(length, length).triu(1).bool()
    for i in range(LAYERS):
        h = norm(f"blocks.{i}.ln1", x)
        q, k, v = (
            linear(f"blocks.{i}.attn.{part}", h).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        weights = (q @ k.mT / (WIDTH // HEADS) ** 0.5).masked_fill(future, -torch.inf).softmax(-1)
        x = x + linear(f"blocks.{i}.attn.proj", (weights @ v).transpose(1, 2).flatten(2))
        h = linear(f"blocks.{i}.mlp.0", norm(f"blocks.{i}.ln2", x))
        x = x + linear(f"blocks.{i}.mlp.2", F.gelu(h))
    return norm("ln_f", x) @ w["head.weight"].T


def checkpoint(folder, network, settings=None, more=None):
    """Write what Lightning wrote, and the authors' settings beside it."""
    first = {n.replace("quantizer.", "quantize."): t for n, t in vqgan().state_dict().items()}
    state = {f"first_stage_model.{name}": tensor for name, tensor in first.items()}
    state |= {f"transformer.{name}": tensor for name, tensor in network.items()}
    block = network["pos_emb"].shape[1]
    for i in range(LAYERS):
        state[f"transformer.blocks.{i}.attn.mask"] = torch.ones(1, 1, block, block).tril()
    state["first_stage_model.loss.discriminator.main.0.weight"] = torch.zeros(3)
    (folder / "checkpoints").mkdir(parents=True)
    document = {"state_dict": state | (more or {}), "epoch": 3, "global_step": 9}
    torch.save(document, folder / "checkpoints" / "last.ckpt")
    if settings is not None:
        (folder / "configs").mkdir()
        (folder / "configs" / "2021-project.yaml").write_text(settings)
    return folder


def condition(kind):
    return f"model:\n  params:\n    cond_stage_config: {kind}\n"


UNCONDITIONAL = condition("__is_unconditional__")
COORDINATES = condition("{target: taming.modules.misc.coord.CoordStage}")


@pytest.mark.parametrize(
    ("reached", "block", "settings", "before"),
    [
        (N, N, UNCONDITIONAL, [0]),
        (N, 40, None, [0]),
        (2 * N - 1, 40, COORDINATES, coordinates(K, 4, 2)),
        (2 * N - 1, 40, None, coordinates(K, 4, 2)),
    ],
)
def test_the_authors_logits_and_images(tmp_path, reached, block, settings, before):
    network = transformer(reached, block)
    folder = checkpoint(tmp_path / "released", network, settings)
    run = import_weights("vqgan", [folder], tmp_path / "run", preset="faces", sets=SETS)
    model = load(run.path)
    tokens = torch.randint(K, (2, N))
    ids = torch.cat([torch.tensor([before, before]), tokens[:, :-1]], 1)
    expected = logits_of(network, ids)[:, len(before) - 1 :]
    text = model.generator.condition(model.text_encoder.encode(["", ""]))
    torch.testing.assert_close(model.generator(tokens, text), expected, rtol=1e-4, atol=1e-4)
    logits, cache = model.generator.begin(text)
    for i in range(N - 1):
        torch.testing.assert_close(logits, expected[:, i], rtol=1e-4, atol=1e-4)
        logits, cache = model.generator.next(tokens[:, i], cache)
    torch.testing.assert_close(logits, expected[:, -1], rtol=1e-4, atol=1e-4)
    images = vqgan().decode(tokens).clamp(-1, 1)
    torch.testing.assert_close(model.generator.decode(tokens), images)
    assert model.sample(["any"], seed=0)[0].size == (8, 8)


def test_coordinates_are_the_means_of_tamings_pooling():
    numbers = (torch.arange(64 * 64) / 64**2).reshape(1, 1, 64, 64)
    pooled = F.interpolate(numbers, scale_factor=1 / 16, mode="area").clamp(0, 1)
    assert coordinates(1024, 4, 16) == (1024 * pooled).round().long().flatten().tolist()


LABELS = condition("{target: taming.modules.util.Labelator, params: {n_classes: 1001}}")


@pytest.mark.parametrize(
    ("reached", "settings", "more", "line"),
    [
        (N, LABELS, {}, "condition is taming.modules.util.Labelator"),
        (N, "a: [", {}, "2021-project.yaml: they cannot be read"),
        (N + 7, None, {}, "8 tokens stand before those of an image of 8 pixels"),
        (N, None, {"cond_stage_model.encoder.conv_in.weight": torch.zeros(1)}, "is an image"),
        (N, None, {"transformer.tok_emb.weight": torch.zeros(K + 3, WIDTH)}, "23 tokens"),
    ],
)
def test_models_with_a_condition_are_refused(tmp_path, reached, settings, more, line):
    folder = checkpoint(tmp_path / "released", transformer(reached, 40), settings, more)
    config = resolve_config("vqgan", preset="faces", sets=SETS, data_needed=False)
    for given in (folder, folder / "checkpoints" / "last.ckpt"):
        with pytest.raises(UserError, match=line):
            load_weights(config, [given])


def test_the_transformer_of_imagenets_classes_is_refused_by_its_sizes(tmp_path):
    network = transformer(N, N)
    for name in list(network):
        if name.startswith("blocks.1."):
            network[name.replace("blocks.1.", "blocks.47.")] = network[name]
    network["tok_emb.weight"] = torch.zeros(K, 1536)
    folder = checkpoint(tmp_path / "released", network)
    config = resolve_config("vqgan", preset="faces", sets=SETS, data_needed=False)
    with pytest.raises(UserError, match="ImageNet's classes; only models without a condition"):
        load_weights(config, [folder])


def test_a_vqgan_alone_is_refused(tmp_path):
    first = {n.replace("quantizer.", "quantize."): t for n, t in vqgan().state_dict().items()}
    torch.save({"state_dict": first}, tmp_path / "last.ckpt")
    config = resolve_config("vqgan", preset="faces", sets=SETS, data_needed=False)
    with pytest.raises(UserError, match=r"tokenizer\.weights"):
        load_weights(config, [tmp_path / "last.ckpt"])
