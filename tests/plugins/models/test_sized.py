"""Preset auto of every built-in model: each size and memory builds, and the small ones train."""

import pytest
import torch

from t2i.core.engine.trial import Trial
from t2i.core.models.building import build, stages_of
from t2i.core.runs import automatic
from t2i.core.runs.configure import resolve_config

MODELS = (
    "ldm", "ddpm", "ddim", "edm", "ncsn", "scoresde", "flowmatching", "dfgan", "galip", "attngan",
    "stackgan", "stackganv2", "dmgan", "gan", "cgan", "gancls", "biggan", "xmcgan", "stylegan",
    "realnvp", "glow", "tarflow", "vae", "cvaegan", "aligndraw", "vqdiffusion", "parti",
    "clipvqgan", "dalle", "vqgan", "vqvae",
    "guide", "upsampler", "glide", "imagen", "dalle2",
)  # fmt: skip
MEMORIES = (None, 8 * 10**9, 80 * 10**9)


@pytest.fixture
def auto(monkeypatch):
    """`auto(model, size, memory, *sets)`: the configuration for a machine, and what was said."""

    def resolved(model, size, memory, *sets):
        machine = automatic.Machine("here", memory, "no", 0)
        monkeypatch.setattr(automatic.Machine, "of", lambda name: machine)
        said = []
        chosen = (f"image_size={size}", *sets) if size else sets
        return resolve_config(model, preset="auto", sets=chosen, say=said.append), said

    return resolved


@pytest.mark.parametrize(
    "sizes", [(32, 256), pytest.param((64, 128, 512), marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("model", MODELS)
def test_every_size_builds_for_every_memory_and_wider_for_more(auto, model, sizes):
    for size in sizes:
        counts = []
        for memory in MEMORIES:
            config, _ = auto(model, size, memory)
            assert config.settings.image_size == config.data.config.image_size == size
            assert config.preset == "auto"
            with torch.device("meta"):
                network = build(config)
            counts.append(sum(p.numel() for p in network.generator.parameters()))
        assert counts == sorted(set(counts)), (size, counts)


@pytest.mark.slow
@pytest.mark.parametrize("memory", MEMORIES[:2])
@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("model", MODELS)
def test_every_stage_takes_a_step(auto, model, size, memory):
    config, _ = auto(model, size, memory)
    for stage in stages_of(config, build(config).text_encoder):
        Trial(config, stage.name, torch.device("cpu")).steps(2)()


@pytest.mark.parametrize("model", ["ldm", "ddpm"])
@pytest.mark.parametrize("size", [48, 96, 192, 384])
def test_sizes_between_powers_of_two_build_where_networks_allow_them(auto, model, size):
    for memory in MEMORIES:
        assert auto(model, size, memory)[0].settings.image_size == size


def test_what_was_chosen_and_why_are_two_lines_and_options_win(auto):
    config, said = auto("dfgan", None, None, "nf=12", "minutes=3")
    assert said[0] == "preset auto: 32 px, the size of data set 'shapes'"
    assert said[1].startswith("preset auto: for here, batches of 32, float32, 0 loader processes")
    assert said[1].endswith("3 minutes; any option overrides this")
    assert (config.settings.nf, config.settings.minutes) == (12, 3)
    assert auto("dfgan", 64, None)[0].settings.minutes == 20  # 10 minutes for each 32 pixels
