"""Import of GALIP's released weights, held by a functional reference of the authors' networks under
their names."""

import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from t2i import load
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise, text_key
from t2i.core.interfaces.text import TextFeatures
from t2i.core.io.images import to_bytes
from t2i.core.models.importing import import_weights
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.clip.config import MEAN, STD
from t2i.plugins.models.galip.networks import Discriminator, QualityAssessor
from t2i.plugins.models.galip.weights import ASSESSOR, JUDGE, load_judge, load_weights

WIDTH, HEADS, LAYERS, GRID, E, Z, NF, BRIDGE, MIDDLE = 8, 2, 4, 4, 12, 6, 2, 4, 3
SETS = [
    "image_size=16", "data.image_size=24", "last_size=14", f"nf={NF}", f"z_dim={Z}",
    f"bridge_width={BRIDGE}",
    f"bridge_middle={MIDDLE}", "bridge_blocks=2", "judge_width=6", "assessor_width=5",
    "feature_blocks=[1,2,4]",
    "prompt_blocks=[2,3]", f"encoder.width={E}", "encoder.heads=2",
    "encoder.vocabulary=[red,circle]",
    "start_from_text=false", "bounded=false", "clip.normalise=twice",
]  # fmt: skip


# --- the authors' networks, as functions of a state dict ------------------------------------------


def conv(w, name, x, padding):
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), padding=padding)


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def df_block(w, name, x, c):
    for affine in ("affine0", "affine1"):
        gamma, beta = (
            linear(
                w,
                f"{name}.{affine}.fc_{part}.linear2",
                linear(w, f"{name}.{affine}.fc_{part}.linear1", c).relu(),
            )
            for part in ("gamma", "beta")
        )
        x = F.leaky_relu(gamma[..., None, None] * x + beta[..., None, None], 0.2)
    return x


def norm(w, name, x):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def clip_block(w, name, x):
    """OpenAI's residual attention block on x (B, L, width)."""
    packed = (
        norm(w, f"{name}.ln_1", x) @ w[f"{name}.attn.in_proj_weight"].T
        + w[f"{name}.attn.in_proj_bias"]
    )
    q, k, v = packed.chunk(3, 2)
    q, k, v = (y.view(*y.shape[:2], HEADS, -1).transpose(1, 2) for y in (q, k, v))
    heard = (q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5).softmax(-1) @ v
    x = x + linear(w, f"{name}.attn.out_proj", heard.transpose(1, 2).reshape(x.shape))
    h = linear(w, f"{name}.mlp.c_fc", norm(w, f"{name}.ln_2", x))
    return x + linear(w, f"{name}.mlp.c_proj", h * torch.sigmoid(1.702 * h))


def clip_tokens(w, name, patches):
    first = w[f"{name}.class_embedding"].expand(len(patches), 1, WIDTH)
    x = (
        torch.cat([first, patches.flatten(2).transpose(1, 2)], 1)
        + w[f"{name}.positional_embedding"]
    )
    return norm(w, f"{name}.ln_pre", x)


def as_map(x):
    return x[:, 1:].transpose(1, 2).reshape(-1, WIDTH, GRID, GRID)


def net_g(w, z, e):
    c = torch.cat([z, e], 1)
    prompts = linear(w, "mapping.fc_prompt", c).view(len(z), -1, WIDTH)
    x = linear(w, "fc_code", z).view(len(z), BRIDGE, GRID, GRID)
    for name in ("mapping.FBlocks.0", "mapping.FBlocks.1"):
        h = df_block(w, f"{name}.fuse1", conv(w, f"{name}.conv1", x, 1), c)
        x = x + df_block(w, f"{name}.fuse2", conv(w, f"{name}.conv2", h, 1), c)
    bridge = conv(w, "mapping.conv_fuse", x, 2)
    t = clip_tokens(w, "mapping.CLIP_ViT", bridge)
    for block in range(LAYERS):
        name = f"mapping.CLIP_ViT.transformer.resblocks.{block}"
        if block in (1, 2):
            t = clip_block(w, name, torch.cat([t, prompts[:, block - 1, None]], 1))[:, :-1]
        else:
            t = clip_block(w, name, t)
    x = conv(w, "mapping.conv", bridge + 0.1 * as_map(t), 2)
    for i, size in enumerate((4, 8, 14)):
        x = F.interpolate(x, size=(size, size))
        h = conv(w, f"GBlocks.{i}.c1", df_block(w, f"GBlocks.{i}.fuse1", x, c), 1)
        h = conv(w, f"GBlocks.{i}.c2", df_block(w, f"GBlocks.{i}.fuse2", h, c), 1)
        x = (conv(w, f"GBlocks.{i}.c_sc", x, 0) if f"GBlocks.{i}.c_sc.weight" in w else x) + h
    return conv(w, "to_rgb.1", F.leaky_relu(x, 0.2), 1)


def features(w, images):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    name = "mapping.CLIP_ViT"
    looked_at = ((F.interpolate(images * 0.5 + 0.5, size=(16, 16)) + 1) * 0.5 - mean) / std
    x, found = clip_tokens(w, name, F.conv2d(looked_at, w[f"{name}.conv1.weight"], stride=4)), []
    for block in range(LAYERS):
        x = clip_block(w, f"{name}.transformer.resblocks.{block}", x)
        found += [as_map(x)] if block in (0, 1, 3) else []
    return found


def net_d(w, maps):
    x = maps[0]
    for name, f in [("DBlocks.0", maps[1]), ("DBlocks.1", maps[2]), ("main", None)]:
        h = F.leaky_relu(conv(w, f"{name}.conv_r.0", x, 1), 0.2)
        h = F.leaky_relu(conv(w, f"{name}.conv_r.2", h, 1), 0.2)
        x = (conv(w, f"{name}.conv_s", x, 0) if name == "main" else x) + w[f"{name}.gamma"] * h
        x = x if f is None else x + w[f"{name}.beta"] * f
    return x


def net_c(w, x, e):
    joint = torch.cat([x, e.view(-1, E, 1, 1).repeat(1, 1, GRID, GRID)], 1)
    return conv(
        w, "joint_conv.2", F.leaky_relu(conv(w, "joint_conv.0", joint, 0), 0.2), 0
    ).flatten()


# --- a released file ------------------------------------------------------------------------------


def tensors(shapes):
    return {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}


def fusion(name, width):
    shapes = {}
    for affine in ("affine0", "affine1"):
        for part in ("gamma", "beta"):
            at = f"{name}.{affine}.fc_{part}"
            shapes |= {f"{at}.linear1.weight": (width, Z + E), f"{at}.linear1.bias": (width,)}
            shapes |= {f"{at}.linear2.weight": (width, width), f"{at}.linear2.bias": (width,)}
    return shapes


def layer(name, out, width, kernel=None):
    return {
        f"{name}.weight": (out, width, *([kernel] * 2 if kernel else ())),
        f"{name}.bias": (out,),
    }


def released_g():
    at = "mapping.CLIP_ViT"
    shapes = layer("fc_code", BRIDGE * GRID**2, Z)
    for i in range(2):
        name = f"mapping.FBlocks.{i}"
        shapes |= layer(f"{name}.conv1", MIDDLE, BRIDGE, 3) | fusion(f"{name}.fuse1", MIDDLE)
        shapes |= layer(f"{name}.conv2", BRIDGE, MIDDLE, 3) | fusion(f"{name}.fuse2", BRIDGE)
    shapes |= layer("mapping.conv_fuse", WIDTH, BRIDGE, 5) | layer("mapping.conv", 8 * NF, WIDTH, 5)
    shapes |= layer("mapping.fc_prompt", 2 * WIDTH, Z + E)
    shapes |= {
        f"{at}.class_embedding": (WIDTH,),
        f"{at}.positional_embedding": (1 + GRID**2, WIDTH),
    }
    shapes |= {
        f"{at}.conv1.weight": (WIDTH, 3, 4, 4),
        f"{at}.ln_pre.weight": (WIDTH,),
        f"{at}.ln_pre.bias": (WIDTH,),
    }
    for i in range(LAYERS):
        name = f"{at}.transformer.resblocks.{i}"
        shapes |= {
            f"{name}.attn.in_proj_weight": (3 * WIDTH, WIDTH),
            f"{name}.attn.in_proj_bias": (3 * WIDTH,),
        }
        shapes |= layer(f"{name}.attn.out_proj", WIDTH, WIDTH) | layer(
            f"{name}.mlp.c_fc", 4 * WIDTH, WIDTH
        )
        shapes |= layer(f"{name}.mlp.c_proj", WIDTH, 4 * WIDTH)
        for n in ("ln_1", "ln_2"):
            shapes |= {f"{name}.{n}.weight": (WIDTH,), f"{name}.{n}.bias": (WIDTH,)}
    for i, (c_in, c_out) in enumerate([(8 * NF, 4 * NF), (4 * NF, 2 * NF), (2 * NF, NF)]):
        name = f"GBlocks.{i}"
        shapes |= layer(f"{name}.c1", c_out, c_in, 3) | layer(f"{name}.c2", c_out, c_out, 3)
        shapes |= layer(f"{name}.c_sc", c_out, c_in, 1)
        shapes |= fusion(f"{name}.fuse1", c_in) | fusion(f"{name}.fuse2", c_out)
    return tensors(shapes | layer("to_rgb.1", 3, NF, 3))


def released_d():
    shapes = {}
    for name, out in (("DBlocks.0", WIDTH), ("DBlocks.1", WIDTH), ("main", 6)):
        shapes |= {
            f"{name}.conv_r.0.weight": (out, WIDTH, 3, 3),
            f"{name}.conv_r.2.weight": (out, out, 3, 3),
        }
        shapes |= layer(f"{name}.conv_s", out, WIDTH, 1) | {f"{name}.gamma": (1,)}
        shapes |= {f"{name}.beta": (1,)} if name != "main" else {}
    return tensors(shapes)


def released_c():
    return tensors({"joint_conv.0.weight": (5, 6 + E, 4, 4), "joint_conv.2.weight": (1, 5, 1, 1)})


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A run's configuration whose CLIP is a folder, as it would be downloaded."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    sizes = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
    sizes |= {"num_attention_heads": HEADS, "image_size": 16, "patch_size": 4, "projection_dim": E}
    CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes)).save_pretrained(folder)
    return resolve_config("galip", sets=[*SETS, f"clip.weights={folder}"])


@pytest.fixture
def released():
    torch.manual_seed(1)
    return {"netG": released_g(), "netD": released_d(), "netC": released_c()}


def written(path, model):
    torch.save(
        {
            "model": model,
            "optimizers": {"optimizer_G": {"state": {}, "param_groups": []}},
            "epoch": 3,
        },
        path,
    )
    return [path]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_same_weights_give_the_authors_image_and_score(config, released, tmp_path, prefix):
    prefixed = {
        net: {prefix + name: t for name, t in state.items()} for net, state in released.items()
    }
    model = load_weights(config, written(tmp_path / "state_epoch_003.pth", prefixed))
    z, e = torch.randn(3, Z), torch.randn(3, E)
    expected = net_g(released["netG"], z, e)
    images = model.generator.train()(z, TextFeatures.of(sentence=e))
    assert images.shape == (3, 3, 14, 14)
    assert expected.std() > 0.1
    assert torch.allclose(images, expected, atol=1e-4, rtol=1e-4)

    clip, settings = model.generator.clip, config.settings
    D, C = Discriminator(settings, clip), QualityAssessor(settings, E, clip.grid)
    load_judge(D, JUDGE, prefixed["netD"], "D")
    load_judge(C, ASSESSOR, prefixed["netC"], "C")
    seen = clip.maps(images, settings.feature_blocks)
    for found, map_ in zip(seen, features(released["netG"], expected), strict=True):
        assert torch.allclose(found, map_, atol=1e-4, rtol=1e-4)
    (score,) = C(D(seen), e)
    expected = net_c(released["netC"], net_d(released["netD"], seen), e)
    assert torch.allclose(score, expected, atol=1e-4, rtol=1e-4)


def test_the_head_of_clip_stays_and_half_precision_is_read(config, released, tmp_path):
    released["netG"] = {
        name: t.half() if "CLIP_ViT" in name else t for name, t in released["netG"].items()
    }
    model = load_weights(config, written(tmp_path / "half.pth", released))
    kept = CLIPVisionModelWithProjection.from_pretrained(config.settings.clip.weights)
    assert torch.equal(
        model.generator.clip.network.visual_projection.weight, kept.visual_projection.weight
    )
    assert all(p.dtype == torch.float32 for p in model.generator.parameters())
    name = "mapping.CLIP_ViT.transformer.resblocks.1.attn.in_proj_weight"
    loaded = model.generator.clip.layers[1].self_attn.k_proj.weight
    assert torch.equal(loaded, released["netG"][name][WIDTH : 2 * WIDTH].float())


def test_an_imported_run_draws_when_clips_folder_is_gone(config, released, tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(config.settings.clip.weights, folder)
    files = written(tmp_path / "x.pth", released)
    run = import_weights(
        "galip", files, tmp_path / "run", preset="tiny", sets=[*SETS, f"clip.weights={folder}"]
    )
    shutil.rmtree(folder)
    model = load(run.path, "cpu")
    (image,) = model.sample(["red circle"], seed=4)
    z = PromptNoise(4, (text_key("red circle", 0),)).normal("z", 0, (Z,))
    e = model.text_encoder.encode(["red circle"]).sentence.detach()
    expected = to_bytes(net_g(released["netG"], z, e))[0]
    assert np.abs(np.asarray(image, int) - expected).max() <= 1


def test_what_does_not_fit_is_refused_naming_it(config, released, tmp_path):
    g = released["netG"]
    lacking = {name: t for name, t in g.items() if name not in ("fc_code.bias", "to_rgb.1.bias")}
    cases = [
        (
            {"netG": lacking},
            r"netG does not fit the network: start\.bias is missing; to_rgb\.bias is missing",
        ),
        (
            {"netG": {**g, "odd.weight": torch.zeros(1)}},
            r"netG does not fit.*odd\.weight is surplus",
        ),
        ({"netG": {**g, "fc_code.bias": torch.zeros(2)}}, r"start\.bias is \(2,\), not \(64,\)"),
        ({"netD": released["netD"]}, r"it has no 'model\.netG'"),
        (
            {**released, "netC": {**released["netC"], "extra": torch.zeros(1)}},
            r"netC does not fit.*extra is surplus",
        ),
        (
            {**released, "netD": {**released["netD"], "main.beta": torch.zeros(1)}},
            r"netD does.*last\.beta is surplus",
        ),
    ]
    for model, message in cases:
        with pytest.raises(UserError, match=message):
            load_weights(config, written(tmp_path / "x.pth", model))
    with pytest.raises(UserError, match="one file holds the authors' whole model, 2 are given"):
        load_weights(config, [tmp_path / "a", tmp_path / "b"])


def test_is_registered():
    assert import_object(registry().models["galip"].weights) is load_weights
