"""The authors' VQ-Diffusion under our names: their checkpoint gives their logits and images."""

import pytest
import torch
from torch.nn import functional as F

from t2i import load
from t2i.core.errors import UserError
from t2i.core.models.importing import import_weights
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig
from t2i.plugins.models.vqdiffusion.weights import load as load_weights
from tests.plugins.models.test_ldm_folders import tokenizer as clip_tokenizer
from tests.plugins.models.test_vqdiffusion import predicted

WIDTH, TEXT, CODES, USED, T, SIDE, LENGTH = 8, 64, 6, 3, 5, 2, 12
BLOCK = {
    "norm_1.times": "ln1.emb", "norm_1.linear": "ln1.linear", "norm_2.times": "ln1_1.emb",
    "norm_2.linear": "ln1_1.linear", "norm_3": "ln2", "mlp.0": "mlp.0", "mlp.2": "mlp.2",
    **{f"{ours}.{part}": f"{theirs}.{'proj' if part == 'out' else part}"
       for ours, theirs in (("attention", "attn1"), ("cross", "attn2"))
       for part in ("query", "key", "value", "out")},
}  # fmt: skip
NAMES = {
    "tokens": "content_emb.emb", "rows": "content_emb.height_emb",
    "columns": "content_emb.width_emb", "norm": "to_logits.0", "logits": "to_logits.1",
    **{f"blocks.{i}.{ours}": f"blocks.{i}.{theirs}" for i in range(2)
       for ours, theirs in BLOCK.items()},
}  # fmt: skip


def network_file():
    """Text2ImageTransformer, all weights random."""

    def linear(name, out, into):
        return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}

    shapes = {
        "content_emb.emb.weight": (USED + 1, WIDTH), "content_emb.height_emb.weight": (SIDE, WIDTH),
        "content_emb.width_emb.weight": (SIDE, WIDTH), "to_logits.0.weight": (WIDTH,),
        "to_logits.0.bias": (WIDTH,), **linear("to_logits.1", USED, WIDTH),
    }  # fmt: skip
    for i in range(2):
        at = f"blocks.{i}"
        for norm in ("ln1", "ln1_1"):
            shapes[f"{at}.{norm}.emb.weight"] = (T, WIDTH)
            shapes |= linear(f"{at}.{norm}.linear", 2 * WIDTH, WIDTH)
        shapes |= {f"{at}.ln2.weight": (WIDTH,), f"{at}.ln2.bias": (WIDTH,)}
        for name, source in (("attn1", WIDTH), ("attn2", TEXT)):
            for part, into in (("query", WIDTH), ("key", source), ("value", source),
                               ("proj", WIDTH)):  # fmt: skip
                shapes |= linear(f"{at}.{name}.{part}", WIDTH, into)
        shapes[f"{at}.attn2.mask"] = (1, 1, 4, 4)
        shapes |= linear(f"{at}.mlp.0", 4 * WIDTH, WIDTH) | linear(f"{at}.mlp.2", WIDTH, 4 * WIDTH)
    return {name: torch.randn(shape) * 0.5 for name, shape in shapes.items()}


def clip_file(vocabulary):
    """OpenAI's text half, all weights random."""
    shapes = {
        "token_embedding.weight": (vocabulary, TEXT), "positional_embedding": (LENGTH, TEXT),
        "text_projection": (TEXT, 5), "ln_final.weight": (TEXT,), "ln_final.bias": (TEXT,),
    }  # fmt: skip
    for i in range(2):
        at = f"transformer.resblocks.{i}"
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{at}.{norm}.weight": (TEXT,), f"{at}.{norm}.bias": (TEXT,)}
        for name, out, into in (
            ("attn.out_proj", TEXT, TEXT), ("mlp.c_fc", 4 * TEXT, TEXT),
            ("mlp.c_proj", TEXT, 4 * TEXT),
        ):  # fmt: skip
            shapes |= {f"{at}.{name}.weight": (out, into), f"{at}.{name}.bias": (out,)}
        shapes |= {f"{at}.attn.in_proj_weight": (3 * TEXT, TEXT), f"{at}.attn.in_proj_bias": (192,)}
    return {name: torch.randn(shape) * 0.1 for name, shape in shapes.items()}


def encoded(w, ids):
    """CLIP's words of token ids (B, L), as OpenAI's code computes them."""
    x = (w["token_embedding.weight"][ids] + w["positional_embedding"]).transpose(0, 1)
    future = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)
    for i in range(2):
        at = f"transformer.resblocks.{i}"
        h = F.layer_norm(x, (TEXT,), w[f"{at}.ln_1.weight"], w[f"{at}.ln_1.bias"])
        x = x + F.multi_head_attention_forward(
            h, h, h, TEXT, 1, w[f"{at}.attn.in_proj_weight"], w[f"{at}.attn.in_proj_bias"],
            None, None, False, 0.0, w[f"{at}.attn.out_proj.weight"],
            w[f"{at}.attn.out_proj.bias"], training=False, attn_mask=future,
        )[0]  # fmt: skip
        h = F.layer_norm(x, (TEXT,), w[f"{at}.ln_2.weight"], w[f"{at}.ln_2.bias"])
        h = F.linear(h, w[f"{at}.mlp.c_fc.weight"], w[f"{at}.mlp.c_fc.bias"])
        h = h * torch.sigmoid(1.702 * h)
        x = x + F.linear(h, w[f"{at}.mlp.c_proj.weight"], w[f"{at}.mlp.c_proj.bias"])
    x = F.layer_norm(x, (TEXT,), w["ln_final.weight"], w["ln_final.bias"])
    return x.transpose(0, 1)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The authors' checkpoint and table, and a folder with CLIP's tokenizer."""
    folder = tmp_path_factory.mktemp("released")
    torch.manual_seed(0)
    words = clip_tokenizer(folder / "clip")
    words.save_pretrained(folder / "clip")
    sizes = {"channels": 32, "multiples": (1, 2, 1), "blocks": 1, "attention": (2,),
             "latent_channels": 8}  # fmt: skip
    described = {"vocabulary": CODES, "code_width": 4, "vqgan": sizes}
    vqgan = ImageTokenizer(TokenizerConfig.of(described, "test"), 8)
    codec = {}
    for name, tensor in vqgan.state_dict().items():
        half = "dec" if name.startswith(("decoder", "post_quant")) else "enc"
        name = name.replace("quantizer.", "quantize.")
        if name.endswith(("embedding.weight", "embed.weight")):
            codec[f"content_codec.dec.{name}"] = tensor
        codec[f"content_codec.{half}.{name}"] = tensor
    network, clip = network_file(), clip_file(len(words))
    diffusion = {
        **{f"transformer.{name}": tensor for name, tensor in network.items()},
        **{f"condition_emb.{name}": tensor for name, tensor in clip.items()},
        "empty_text_embed": torch.randn(LENGTH, TEXT).double(), "log_at": torch.zeros(T),
        "Lt_history": torch.zeros(T),
    }  # fmt: skip
    older = {name: tensor + 1 for name, tensor in diffusion.items()}
    document = {
        "last_epoch": 3, "last_iter": 9, "ema": diffusion,
        "model": {**codec, **{f"transformer.{name}": tensor for name, tensor in older.items()}},
    }  # fmt: skip
    torch.save(document, folder / "coco_learnable.pth")
    torch.save(torch.tensor([0, 1, 0, 0, 2, 1]), folder / "table.pt")
    return folder, network, clip, diffusion, vqgan, words


def settings(folder):
    return [f"encoder.weights={folder / 'clip'}", "heads=2", "sampler.steps=2"]


def test_the_checkpoint_gives_the_authors_words_logits_and_images(released, tmp_path):
    folder, network, clip, diffusion, vqgan, words = released
    files = [folder / "table.pt", folder / "coco_learnable.pth"]
    run = import_weights("vqdiffusion", files, tmp_path / "run", sets=settings(folder))
    model = load(run.path)
    generator = model.generator
    captions = ["a red bird", ""]
    text = model.text_encoder.encode(captions)
    ids = words(captions, padding="max_length", max_length=LENGTH)
    ids, mask = torch.tensor(ids["input_ids"]), torch.tensor(ids["attention_mask"]).bool()
    expected = encoded(clip, ids.masked_fill(~mask, 0))
    torch.testing.assert_close(text.words, expected, rtol=1e-4, atol=1e-5)

    text = generator.condition(text)
    read = expected / expected.norm(dim=-1, keepdim=True)
    read[1] = diffusion["empty_text_embed"].float()
    torch.testing.assert_close(text.words, read, rtol=1e-4, atol=1e-5)
    x_t, t = torch.tensor([[0, 3, 1, 2], [3, 3, 3, 0]]), torch.tensor([1, 5])
    ours = {
        f"{name}.{kind}": network[f"{theirs}.{kind}"]
        for name, theirs in NAMES.items() for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in network
    }  # fmt: skip
    everyone = torch.ones(2, LENGTH, dtype=torch.bool)
    torch.testing.assert_close(
        generator(x_t, t, text), predicted(ours, x_t, t, read, everyone), rtol=1e-4, atol=1e-4
    )
    tokens = torch.tensor([[0, 1, 2, 0]])  # the first index of each in the table
    torch.testing.assert_close(
        generator.decode(tokens), vqgan.eval().decode(torch.tensor([[0, 1, 4, 0]])).clamp(-1, 1)
    )
    assert generator.index.tolist() == [0, 1, 0, 0, 2, 1]
    assert len(model.sample(["a red bird"], seed=0)) == 1


def test_wrong_files_are_refused(released):
    folder = released[0]
    config = resolve_config("vqdiffusion", preset="coco", sets=settings(folder), data_needed=False)
    with pytest.raises(UserError, match="add the table"):
        load_weights(config, [folder / "coco_learnable.pth"])
    with pytest.raises(UserError, match="0 checkpoints and 1 tables"):
        load_weights(config, [folder / "table.pt"])
    torch.save(torch.tensor([0, 1]), folder / "short.pt")
    with pytest.raises(UserError, match="not of 6 indexes"):
        load_weights(config, [folder / "coco_learnable.pth", folder / "short.pt"])
