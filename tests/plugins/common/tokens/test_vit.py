"""ViT-VQGAN's encoder and decoder: as written out, with the authors' weights renamed."""

import math

import torch
from torch.nn import functional as F

from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig, ViTSizes
from t2i.plugins.common.tokens.vit import ViTDecoder, ViTEncoder, grid_sinusoids, renamed

SIDE, PATCH, CODE = 3, 2, 4
ENCODER = {"layers": 2, "width": 8, "heads": 2, "head_width": 3, "hidden": 10}
DECODER = {"layers": 1, "width": 12, "heads": 3, "head_width": 5, "hidden": 7}
SIZES = ViTSizes(patch=PATCH, encoder=ENCODER, decoder=DECODER)


def theirs():
    """Weights with the authors' names, all at random."""
    torch.manual_seed(0)
    state = {}

    def draw(name, *shape):
        state[name] = torch.randn(*shape).double() * 0.4

    for part, sizes in (("encoder", ENCODER), ("decoder", DECODER)):
        width, inner = sizes["width"], sizes["heads"] * sizes["head_width"]
        for i in range(sizes["layers"]):
            layer = f"{part}.transformer.layers.{i}"
            for n in (0, 1):
                draw(f"{layer}.{n}.norm.weight", width)
                draw(f"{layer}.{n}.norm.bias", width)
            draw(f"{layer}.0.fn.to_qkv.weight", 3 * inner, width)
            draw(f"{layer}.0.fn.to_out.weight", width, inner)
            draw(f"{layer}.0.fn.to_out.bias", width)
            for n, (out, into) in ((0, (sizes["hidden"], width)), (2, (width, sizes["hidden"]))):
                draw(f"{layer}.1.fn.net.{n}.weight", out, into)
                draw(f"{layer}.1.fn.net.{n}.bias", out)
        draw(f"{part}.transformer.norm.weight", width)
        draw(f"{part}.transformer.norm.bias", width)
    draw("encoder.to_patch_embedding.0.weight", 8, 3, PATCH, PATCH)
    draw("encoder.to_patch_embedding.0.bias", 8)
    draw("decoder.to_pixel.1.weight", 12, 3, PATCH, PATCH)
    draw("decoder.to_pixel.1.bias", 3)
    draw("pre_quant.weight", CODE, 8)
    draw("pre_quant.bias", CODE)
    draw("post_quant.weight", 12, CODE)
    draw("post_quant.bias", 12)
    draw("quantizer.embedding.weight", 5, CODE)
    state["encoder.en_pos_embedding"] = torch.zeros(1, 9, 8)
    state["decoder.de_pos_embedding"] = torch.zeros(1, 9, 12)
    state["loss.discriminator.blocks.0.weight"] = torch.zeros(1)
    return state


def linear(x, w, name):
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def norm(x, w, name):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def transformer(x, w, part, sizes):
    for i in range(sizes["layers"]):
        name, d = f"{part}.transformer.layers.{i}", sizes["head_width"]
        q, k, v = linear(norm(x, w, f"{name}.0.norm"), w, f"{name}.0.fn.to_qkv").chunk(3, -1)
        heads = []
        for n in range(sizes["heads"]):
            own = slice(n * d, n * d + d)
            scores = q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(d)
            heads.append(scores.softmax(-1) @ v[..., own])
        x = x + linear(torch.cat(heads, -1), w, f"{name}.0.fn.to_out")
        h = linear(norm(x, w, f"{name}.1.norm"), w, f"{name}.1.fn.net.0").tanh()
        x = x + linear(h, w, f"{name}.1.fn.net.2")
    return norm(x, w, f"{part}.transformer.norm")


def places(width):
    """Sines and cosines of columns, then of rows, place by place."""
    rows = []
    for row in range(SIDE):
        for column in range(SIDE):
            vector = []
            for at in (column, row):
                angles = [at / 10000 ** (i / (width / 4)) for i in range(width // 4)]
                vector += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            rows.append(vector)
    return torch.tensor(rows, dtype=torch.float64)


def test_positions():
    torch.testing.assert_close(grid_sinusoids(12, SIDE).double(), places(12), rtol=0, atol=1e-7)


def test_encoder_and_decoder_are_the_authors_written_out():
    w = theirs()
    ours = renamed(w)
    encoder, decoder = ViTEncoder(SIZES, SIDE).double(), ViTDecoder(SIZES, SIDE).double()
    for network, name in ((encoder, "encoder."), (decoder, "decoder.")):
        own = {k.removeprefix(name): v for k, v in ours.items() if k.startswith(name)}
        network.load_state_dict(own)
        network.transformer.positions = places(network.transformer.positions.shape[1])

    images = torch.rand(2, 3, 6, 6).double()
    patches = F.unfold(images, PATCH, stride=PATCH).transpose(1, 2)
    x = patches @ w["encoder.to_patch_embedding.0.weight"].flatten(1).T
    x = x + w["encoder.to_patch_embedding.0.bias"] + places(8)
    z = linear(transformer(x, w, "encoder", ENCODER), w, "pre_quant")
    found = F.conv2d(encoder(2 * images - 1), ours["quant_conv.weight"], ours["quant_conv.bias"])
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), z, rtol=1e-9, atol=1e-9)

    x = transformer(linear(z, w, "post_quant") + places(12), w, "decoder", DECODER)
    columns = x @ w["decoder.to_pixel.1.weight"].flatten(1)
    pixels = F.fold(columns.transpose(1, 2), 6, PATCH, stride=PATCH)
    pixels = pixels + w["decoder.to_pixel.1.bias"].view(3, 1, 1)
    grid = z.transpose(1, 2).unflatten(2, (SIDE, SIDE))
    back = F.conv2d(grid, ours["post_quant_conv.weight"], ours["post_quant_conv.bias"])
    torch.testing.assert_close(decoder(back), 2 * pixels - 1, rtol=1e-9, atol=1e-9)


def test_the_tokenizer_takes_the_authors_weights_and_normalises_codes():
    from t2i.plugins.common.tokens.tokenizer import ImageTokenizer

    config = TokenizerConfig.of(
        {
            "kind": "vit", "vocabulary": 5, "code_width": CODE, "vit": SIZES.model_dump(),
            "quantizer": {"normalised": True},
        },
        "test",
    )  # fmt: skip
    w = theirs()
    tokenizer = ImageTokenizer(config, 6).double()
    tokenizer.load_state_dict(renamed(w))
    images = torch.rand(2, 3, 6, 6).double() * 2 - 1
    z = F.normalize(tokenizer.features(images), dim=1).flatten(2).transpose(1, 2)
    codes = F.normalize(w["quantizer.embedding.weight"], dim=1)
    tokens = tokenizer.encode(images)
    assert bool((tokens == torch.cdist(z, codes).argmin(-1)).all())
    quantised = tokenizer.quantise(tokenizer.features(images))
    error = (z - codes[tokens]).square().mean()
    torch.testing.assert_close(quantised.loss, 1.25 * error)
    assert tokenizer.decode(tokens).shape == images.shape
