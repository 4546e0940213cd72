"""What the tests of pipelines' folders share: small networks of random weights in the true format,
and the images of a pipeline and of our model from the same noise."""

import json

import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from t2i.core.interfaces.noise import PromptNoise
from t2i.core.models.options import Options
from tests.plugins.models.test_ldm_folders import tokenizer

CAPTIONS = ["a Red bird", "blue, and much more than the few tokens that are read " * 9]
"""A short caption and one that is cut, in a batch."""
KEYS = ((0, 0), (1, 0))
VAE = {
    "block_out_channels": (8, 16), "norm_num_groups": 4, "sample_size": 16,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip
PIECES = [
    "\u2581",
    *"abcdefghijklmnopqrstuvwxyz,.",
    "\u2581a",
    "re",
    "\u2581red",
    "bird",
    "AR",
    "R",
]


@torch.no_grad()
def random(network, std=0.1):
    """Draws every parameter: what is 1 or 0 at first would hide that it is read."""
    for name, parameter in network.named_parameters():
        scale = "norm" in name and name.endswith("weight")
        parameter.normal_(float(scale), std)
    return network.eval()


def clip(place, projection=None, **settings):
    """A CLIP's text half with its tokenizer, which pads with another token than the end."""
    words = tokenizer(place)
    if projection:
        words.pad_token = "!"
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    config = CLIPTextConfig(**{
        "vocab_size": len(words), "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 3, "num_attention_heads": 2, "bos_token_id": len(words) - 2,
        "eos_token_id": len(words) - 1, "projection_dim": projection or 16, **settings,
    })  # fmt: skip
    return random(kind(config)), words


def t5_tokenizer():
    """T5's, over a few pieces: lower case, and two of upper case."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [(piece, -3.0 - 0.1 * i / len(piece)) for i, piece in enumerate(PIECES)]
    return T5Tokenizer(vocab=special + pieces, extra_ids=0)


def t5(width=32, **settings):
    """T5's encoder of version 1.1, with its tokenizer."""
    words = t5_tokenizer()
    config = T5Config(**{
        "vocab_size": 64, "d_model": width, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
        "feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 8, **settings,
    })  # fmt: skip
    return random(T5EncoderModel(config), 0.3), words


def saved(pipe, folder):
    """The folder of a pipeline, and the pipeline without its progress bar."""
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder)
    return pipe, folder


def ours(model, steps=4, guidance=4.0, sampler=None, captions=CAPTIONS, **wanted):
    """(B, 3, H, W) in [0, 1], as pipelines give it."""
    options = model.options(**wanted) if wanted else Options()
    choice = model.sampler(sampler, steps=steps, guidance=guidance)
    made = model.check(captions, choice, options)
    with torch.no_grad():
        request = model.request(
            captions, PromptNoise(3, KEYS[: len(captions)]), null=made.needs_null,
            options=options.of([*range(len(captions))]),
        )  # fmt: skip
        return (made.sample(model.generator, request) / 2 + 0.5).clamp(0, 1)


def theirs(pipe, steps=4, guidance=4.0, size=(16, 16), captions=CAPTIONS, **more):
    """The images of a pipeline whose latents are half as high and wide as its images."""
    noise = PromptNoise(3, KEYS[: len(captions)])
    network = getattr(pipe, "unet", None) or pipe.transformer
    start = noise.start("x_T", (network.config.in_channels, size[0] // 2, size[1] // 2))
    with torch.no_grad():
        return pipe(
            list(captions), latents=start, generator=noise.generators("chain", 0),
            num_inference_steps=steps, guidance_scale=guidance, output_type="pt",
            height=size[0], width=size[1], **more,
        ).images  # fmt: skip


def counted(*modules):
    """The numbers of rows that modules are given, a list for each, from now on."""
    rows = [[] for _ in modules]
    for module, own in zip(modules, rows, strict=True):
        module.register_forward_hook(
            lambda _, given, more, out, own=own: own.append(len((*given, *more.values())[0])),
            with_kwargs=True,
        )
    return rows


def close(a, b):
    assert a.shape == b.shape
    assert float(a.std()) > 0.01  # an image, not a plain colour
    assert not torch.allclose(a[0], a[-1], atol=1e-2) or len(a) == 1
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def changed(path, **settings):
    """Changes a JSON file; "REMOVED" takes a key away."""
    document = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: v for key, v in document.items() if v != "REMOVED"}))
