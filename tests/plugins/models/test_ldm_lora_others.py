"""LoRAs of Stable Diffusion XL, Stable Diffusion 3 and PixArt-alpha: what diffusers and peft write
is read here, with its alpha, and what is written here is read there. The images are equal."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file

from t2i.core.engine import train
from t2i.core.engine.automatic import Training, resolve
from t2i.core.engine.reporting import Silent
from t2i.core.models.loading import find, load
from t2i.core.models.lora_export import export_lora
from t2i.core.models.origin import find_origin
from tests.plugins.models import test_ldm_pixart, test_ldm_sd3, test_ldm_sdxl
from tests.plugins.models.pipelines import close, ours, theirs

TEXTS = ("text_encoder", "text_encoder_2")
CLIP = ["q_proj", "v_proj"]
ATTENTION = ["to_q", "to_v", "to_out.0"]
SETS = (
    "steps=2", "batch_size=2", "threads=1", "sampler.steps=2", "lr=0.1", "lora.rank=2",
    "lora.alpha=6", "ema_decay=0",
)  # fmt: skip


def adapters(targets, **settings):
    """Random ones, whose factor is not 1."""
    return LoraConfig(
        r=2, lora_alpha=6, target_modules=targets, init_lora_weights=False, **settings
    )


def trained(place, folder):
    """A run with adapters."""
    (place / "pics").mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "pics" / f"{i}.png")
        (place / "pics" / f"{i}.txt").write_text("a bird\n")
    data = {"data": {"name": "imagefolder", "dir": str(place / "pics")}}
    start = find_origin(folder)
    config = resolve(Training(None, sets=SETS, more=data, start=start), str)
    return train(config, place / "run", reporter=Silent(), start=start)


@pytest.mark.parametrize("kind", [test_ldm_sdxl, test_ldm_sd3], ids=["xl", "sd3"])
@pytest.mark.parametrize("rooted", [False, True], ids=["alpha", "rslora"])
def test_what_diffusers_writes_is_read(kind, rooted, tmp_path):
    pipe, folder = kind.pipeline(tmp_path)
    name = "unet" if kind is test_ldm_sdxl else "transformer"
    modules = {part: getattr(pipe, part) for part in (name, *TEXTS)}
    torch.manual_seed(1)
    for part, module in modules.items():
        targets = CLIP if part in TEXTS else ATTENTION
        inject_adapter_in_model(adapters(targets, use_rslora=rooted), module)
    layers = {f"{part}_lora_layers": get_peft_model_state_dict(m) for part, m in modules.items()}
    told = {
        f"{part}_lora_adapter_metadata": module.peft_config["default"].to_dict()
        for part, module in modules.items()
    }
    pipe.save_lora_weights(tmp_path / "lora", **layers, **told)
    model = load(folder, "cpu")
    before = ours(model)
    lora = model.lora(tmp_path / "lora")
    assert not lora.file.unused
    assert not torch.allclose(ours(model), before, atol=1e-2)
    close(ours(model), theirs(pipe))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [test_ldm_sdxl, test_ldm_sd3], ids=["xl", "sd3"])
def test_diffusers_reads_what_is_written(kind, tmp_path):
    pipe, folder = kind.pipeline(tmp_path)
    run = trained(tmp_path, folder)
    tuned = ours(load(run.path, "cpu"))
    file = export_lora(find(run.path), tmp_path / "lora.safetensors")
    pipe.load_lora_weights(str(file))
    close(tuned, theirs(pipe))
    kohya = export_lora(find(run.path), tmp_path / "kohya.safetensors", "kohya")
    before = "lora_unet_" if kind is test_ldm_sdxl else "lora_transformer_"
    assert all(name.startswith(before) for name in load_file(kohya))
    model = load(folder, "cpu")
    assert not model.lora(kohya).file.unused
    close(ours(model), tuned)
    if kind is test_ldm_sdxl:
        pipe.unload_lora_weights()
        pipe.load_lora_weights(str(kohya))
        close(tuned, theirs(pipe))


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"alpha_pattern": {"to_q": 1}}])
def test_a_folder_of_peft_is_read_with_its_alpha(settings, tmp_path):
    pipe, folder = test_ldm_pixart.pipeline(tmp_path)
    torch.manual_seed(1)
    wrapped = get_peft_model(pipe.transformer, adapters(ATTENTION, **settings))
    wrapped.save_pretrained(tmp_path / "lora")
    model = load(folder, "cpu")
    assert not model.lora(tmp_path / "lora").file.unused
    wrapped.merge_and_unload()
    close(ours(model), theirs(pipe, **test_ldm_pixart.RAW))
