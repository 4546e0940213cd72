"""LoRA files on a Stable Diffusion folder: the images are those of diffusers' pipeline. A run with
adapters trains, resumes to the bit, needs its base, and is exported."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from t2i.cli.main import main
from t2i.core.engine import resume, train
from t2i.core.engine.automatic import Training, resolve
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.io.tensors import load_tensors
from t2i.core.models.loading import find, load
from t2i.core.models.lora_export import export_lora
from t2i.core.models.metadata import model_hash
from t2i.core.models.origin import find_origin
from t2i.plugins.models.ldm.lora import authors_names
from tests.plugins.models import test_ldm_folders as folders

CHANGED = (
    "to_q", "to_v", "to_out", "proj_in", "conv1", "downsamplers", "q_proj", "out_proj", "fc1",
)  # fmt: skip
SHORT = (
    "steps=4", "batch_size=2", "threads=1", "sampler.steps=2", "lr=0.01", "lr_text=0.01",
    "checkpoint_every=2", "keep=3", "ema_decay=0.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder `sd`, LoRA files for it in several layouts, and images in `pics`."""
    place = tmp_path_factory.mktemp("lora")
    folders.pipeline(place, DDIMScheduler(**folders.SD)).save_pretrained(place / "sd")
    layers = [
        (network, name, layer)
        for network, one in load(place / "sd", "cpu").lora_networks.items()
        for name, layer in one.layers().items()
        if any(part in name for part in CHANGED)
    ]
    ours, kohya, old = {}, {}, {}
    for number, (network, name, layer) in enumerate(layers):
        down, up = factors(layer.weight, number)
        ours |= {
            f"{network}.{name}.lora_A.weight": down,
            f"{network}.{name}.lora_B.weight": up,
        }
        prefix = {"unet": "lora_unet", "text_encoder": "lora_te"}[network]
        spelt = f"{prefix}_{name.replace('.', '_')}"
        kohya |= {
            f"{spelt}.lora_down.weight": down, f"{spelt}.lora_up.weight": up,
            f"{spelt}.alpha": torch.tensor(1.5),
        }  # fmt: skip
        if "attn" in name and network == "unet":
            before, _, last = name.removesuffix(".0").rpartition(".")
            spelt = f"unet.{before}.processor.{last}_lora"
            old |= {f"{spelt}.down.weight": down, f"{spelt}.up.weight": up}
    save_file(ours, place / "ours.safetensors")
    save_file(kohya, place / "kohya.safetensors")
    save_file(old, place / "old.safetensors")
    (place / "pics").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "pics" / f"{i}.png")
        (place / "pics" / f"{i}.txt").write_text(f"a bird {i}\n")
    return place


def factors(weight, seed, rank=3):
    draw = torch.Generator().manual_seed(seed)
    ones = [1] * (weight.dim() - 2)
    down = torch.randn(rank, *weight.shape[1:], generator=draw)
    return 0.3 * down, 0.3 * torch.randn(len(weight), rank, *ones, generator=draw)


@pytest.fixture(scope="module")
def model(place):
    return load(place / "sd", "cpu")


@pytest.mark.parametrize("name", ["ours", "kohya", "old"])
def test_images_are_those_of_diffusers_and_removing_restores_the_weights(name, place, model):
    file = place / f"{name}.safetensors"
    before, digest = folders.ours(model, steps=3), model_hash(model)
    pipe = StableDiffusionPipeline.from_pretrained(place / "sd", safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(file))
    lora = model.lora(file)
    assert f"{len(load_file(file))} of {len(load_file(file))} keys used" in lora.told
    after = folders.ours(model, steps=3)
    folders.close(after, folders.theirs(pipe, steps=3))
    assert (after - before).abs().max() > 0.01
    assert model_hash(model) == digest  # the LoRA has a hash of its own
    lora.remove()
    assert torch.equal(folders.ours(model, steps=3), before)


def test_weights_add_up_and_one_of_several_can_be_removed(place, model):
    weight = model.generator.unet.unet.conv_in.weight  # not changed: a control
    layer = model.lora_networks["unet"].layers()["mid_block.attentions.0.proj_in"].weight
    first, control = layer.clone(), weight.clone()
    one, two = model.lora(place / "ours.safetensors", 0.5), model.lora(place / "kohya.safetensors")
    both = layer.clone()
    one.remove()
    alone = layer.clone()
    two.remove()
    torch.testing.assert_close(both - alone, alone - first)  # alpha / r is 0.5, as the weight is
    assert torch.equal(layer, first)
    assert torch.equal(weight, control)


def test_a_partial_fit_is_counted_and_a_foreign_file_is_named(place, model, tmp_path):
    tensors = load_file(place / "kohya.safetensors")
    name = next(iter(tensors)).partition(".")[0]
    more = {f"{name}.dora_scale": torch.ones(1), "lora_te2_text_model_x.alpha": torch.ones(())}
    save_file(tensors | more, tmp_path / "partial.safetensors")
    lora = model.lora(tmp_path / "partial.safetensors")
    used, total = len(tensors) - 3, len(tensors) + 2  # a layer with dora_scale is another change
    assert f"{used} of {total} keys used; not used: " in lora.told
    lora.remove()
    flux = {f"transformer.single_transformer_blocks.0.attn.to_q.lora_{x}.weight": torch.ones(2, 2)
            for x in "AB"}  # fmt: skip
    save_file(flux, tmp_path / "flux.safetensors")
    with pytest.raises(UserError, match=r"none of its 2 keys fits .* LoRA for FLUX"):
        model.lora(tmp_path / "flux.safetensors")
    with pytest.raises(UserError, match=r"is .* not a LoRA"):
        model.lora(place / "sd" / "unet" / "diffusion_pytorch_model.safetensors")
    wide = {key: torch.ones(x.shape[0] + 1, *x.shape[1:]) if key.endswith("up.weight") else x
            for key, x in tensors.items()}  # fmt: skip
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(UserError, match="trained on another base"):
        model.lora(tmp_path / "wide.safetensors")
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html><html>log in</html>")
    with pytest.raises(UserError, match=r"is a web page .*; download it again"):
        model.lora(tmp_path / "page.safetensors")
    spoilt = {key: x * torch.nan if key.endswith("up.weight") else x for key, x in tensors.items()}
    save_file(spoilt, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match="is not finite: the file is damaged"):
        model.lora(tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match="its weight is nan: give a number"):
        model.lora(place / "kohya.safetensors", float("nan"))
    assert not len(model.loras)


def test_names_of_stable_diffusions_authors_are_read(model, tmp_path):
    unet = model.generator.unet.unet
    names = authors_names(unet)
    assert names["down_blocks.0.resnets.0.conv1"] == "input_blocks.1.0.in_layers.2"
    assert names["down_blocks.0.downsamplers.0.conv"] == "input_blocks.2.0.op"
    assert names["up_blocks.1.resnets.1.conv_shortcut"] == "output_blocks.3.0.skip_connection"
    assert names["mid_block.attentions.0.proj_in"] == "middle_block.1.proj_in"
    down, up = factors(unet.mid_block.attentions[0].proj_in.weight, 0)
    spelt = "lora_unet_middle_block_1_proj_in"
    save_file(
        {f"{spelt}.lora_down.weight": down, f"{spelt}.lora_up.weight": up},
        tmp_path / "xl.safetensors",
    )
    lora = model.lora(tmp_path / "xl.safetensors")
    assert lora.file.pairs[0][0].name == "unet.mid_block.attentions.0.proj_in"
    lora.remove()


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_a_sample_records_its_loras_and_is_sampled_again(place, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    file = shutil.copy(place / "ours.safetensors", tmp_path)
    ask = ("sample", "--run", place / "sd", "-p", "a bird", "--steps", "2")
    assert run(*ask, "--lora", f"{file}:0.7", "--out", "with") == 0
    assert "keys used" in capfd.readouterr().err
    assert run(*ask, "--out", "without") == 0
    record = json.loads((tmp_path / "with" / "samples.jsonl").read_text())
    [lora] = record["settings"]["loras"]
    assert (lora["weight"], len(lora["hash"])) == (0.7, 12)
    other = json.loads((tmp_path / "without" / "samples.jsonl").read_text())
    assert record["settings"]["hash"] == other["settings"]["hash"]
    names = [tmp_path / name / "0000-000.png" for name in ("with", "without")]
    assert names[0].read_bytes() != names[1].read_bytes()
    assert f'Lora hashes: "ours: {lora["hash"]}"' in Image.open(names[0]).text["parameters"]
    assert run(*ask, "--lora", f"{file}:0.6", "--out", "with") == 2  # another request
    assert run("sample", "--again", names[0], "--out", "again") == 0
    assert "the same bytes" in capfd.readouterr().out
    (tmp_path / "ours.safetensors").rename(tmp_path / "moved.safetensors")
    assert run("sample", "--again", names[0], "--out", "c") == 2
    assert run("sample", "--again", names[0], "--lora", "moved.safetensors", "--out", "c") == 0


def adapted(place, out, *sets, start="sd", **options):
    origin = find_origin(place / start)
    data = {"data": {"name": "imagefolder", "dir": str(place / "pics")}}
    config = resolve(Training(None, sets=(*SHORT, *sets), more=data, start=origin), str)
    return train(config, out, reporter=Silent(), start=origin, **options)


def test_adapters_train_resume_to_the_bit_and_need_their_base(place, tmp_path):
    shutil.copytree(place / "sd", tmp_path / "sd")
    shutil.copytree(place / "pics", tmp_path / "pics")
    sets = ("lora.rank=2", "lora.alpha=4", "lora.text_encoder=true", "lora.dropout=0.1")
    done = adapted(tmp_path, tmp_path / "a", *sets)
    saved = load_tensors(done.model / "generator.safetensors", "x")
    assert all(".lora_" in name or name.startswith("autoencoder.") for name in saved)
    assert any("attn1.to_q.lora_B" in name and x.any() for name, x in saved.items())
    assert not any(name.startswith("autoencoder.vae.") for name in saved)
    text = load_tensors(done.model / "text_encoder.safetensors", "x")
    assert any("q_proj.lora_B" in name and x.any() for name, x in text.items())
    checkpoint = done.checkpoints / "step-4"
    assert set(load_tensors(checkpoint / "modules.generator.safetensors", "x")) == set(saved)
    averages = load_tensors(checkpoint / "ema.safetensors", "x")
    assert all(".lora_" in name for name in averages)
    document = json.loads(done.config_file.read_text())
    assert document["base"]["hash"] == model_hash(load(tmp_path / "sd", "cpu"))
    whole = load(done.path, "cpu")
    export_lora(find(done.path), tmp_path / "lora.safetensors", "kohya")
    base = load(tmp_path / "sd", "cpu")
    base.lora(tmp_path / "lora.safetensors")
    folders.close(folders.ours(base, steps=2), folders.ours(whole, steps=2))
    export_lora(find(done.path), tmp_path / "folder")
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "sd", safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(tmp_path / "folder"))
    folders.close(folders.ours(whole, steps=2), folders.theirs(pipe, steps=2))
    shutil.copytree(done.path, tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "step-4")  # as if it had been killed before
    (tmp_path / "b" / "summary.json").unlink()
    again = resume(tmp_path / "b", reporter=Silent())
    for name in ("generator", "text_encoder"):
        first = load_tensors(done.model / f"{name}.safetensors", "x")
        second = load_tensors(again.model / f"{name}.safetensors", "x")
        assert all(torch.equal(first[key], second[key]) for key in first)
    tuned = load(done.checkpoints / "step-4", "cpu")
    torch.testing.assert_close(folders.ours(tuned, steps=2), folders.ours(whole, steps=2))
    file = tmp_path / "sd" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: x + 1 for name, x in load_file(file).items()}, file)
    with pytest.raises(UserError, match=r"a base with hash .* put the first weights back"):
        load(done.path, "cpu")
    with pytest.raises(UserError, match="put the first weights back"):
        resume(tmp_path / "b", steps=6, reporter=Silent())
    shutil.rmtree(tmp_path / "sd")
    with pytest.raises(UserError, match=r"it changes the weights of .*sd"):
        load(done.path, "cpu")


def test_targets_are_chosen_by_kind_or_name_and_a_run_can_be_the_base(place, tmp_path):
    first = adapted(place, tmp_path / "a", "lora.rank=1", "lora.targets=[conv1]", "steps=1")
    names = load_tensors(first.model / "generator.safetensors", "x")
    adapters = [name for name in names if ".lora_" in name]
    assert adapters
    assert all(".conv1.lora_" in name for name in adapters)
    data = {"data": {"name": "imagefolder", "dir": str(place / "pics")}}
    origin = find_origin(first.path)
    config = resolve(Training(None, sets=SHORT, more=data, start=origin), str)
    second = train(config, tmp_path / "b", reporter=Silent(), start=origin)
    assert load(second.path, "cpu").base is None
    with pytest.raises(UserError, match="no layer that this stage trains"):
        adapted(place, tmp_path / "c", "lora.rank=1", "lora.targets=[nothing]")
    with pytest.raises(UserError, match="has no such stage"):
        adapted(place, tmp_path / "d", "lora.rank=1", "lora.stage=autoencoder")


def test_a_subject_with_images_of_its_class_from_the_model(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "pics", "dog")
    sets = [part for each in (*SHORT, "steps=2", 'data.prompt=a photo of sks dog',
            'data.class_prompt=a photo of a dog', "data.class_images=3", "data.prior_weight=0.5")
            for part in ("--set", each)]  # fmt: skip
    ask = ("train", "--from", place / "sd", "--lora", "2", "--data", "subject", "--data-dir", "dog")
    assert run(*ask, *sets, "--out", "a") == 0
    assert len(list((tmp_path / "dog-class").glob("*.png"))) == 3
    assert run("export", "--run", "a", "--lora", "--out", "dog.safetensors") == 0
    assert run("sample", "--run", place / "sd", "--lora", "dog.safetensors", "-p", "sks dog",
               "--steps", "2", "--out", "b") == 0  # fmt: skip
    assert run("sample", "--run", "a", "-p", "sks dog", "--steps", "2", "--out", "c") == 0
