"""Released checkpoints of score-based models, and diffusers' folders of NCSN++."""

import json

import pytest
import torch
from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler, UNet2DModel

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.models.importing import import_weights
from t2i.core.models.loading import load
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.scoresde.config import ScoreSDEConfig
from t2i.plugins.models.scoresde.networks import build
from t2i.plugins.models.scoresde.weights import averaged

NARROW = {"width": 8, "multipliers": (1, 2), "layers": 1, "attention": (12,), "dropout": 0.0}
SIZE = 24
NO_TEXT = TextFeatures.of(sentence=torch.zeros(2, 1))


def generator(preset="cifar-ve"):
    """A narrow version of a preset's network, without text, with random weights."""
    torch.manual_seed(1)
    settings = resolve_config("scoresde", preset=preset).settings.model_dump()
    net = {**settings["ncsnpp"], **NARROW, "sentence": False}
    config = ScoreSDEConfig.of({**settings, "image_size": SIZE, "ncsnpp": net}, "test")
    made = build(config, TextShape(1, 1)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.05)
    return made


def checkpoint(network, shift=1.0):
    """What the authors' code saves: the last weights, and their averages as a list."""
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    parameters = list(network.parameters())
    adam = torch.optim.Adam(parameters)
    return {
        "optimizer": adam.state_dict(),
        "model": {"module.sigmas": torch.ones(4), **state},
        "ema": {
            "decay": 0.999,
            "num_updates": 7,
            "shadow_params": [p.detach() * 1.1 + shift for p in parameters],
        },
        "step": 7,
    }


CHOICES = [f"ncsnpp.{name}={json.dumps(value)}" for name, value in NARROW.items()]


def imported(tmp_path, document, preset="cifar-ve"):
    torch.save(document, tmp_path / "checkpoint_7.pth")
    import_weights(
        "scoresde",
        [tmp_path / "checkpoint_7.pth"],
        tmp_path / "run",
        preset=preset,
        sets=[f"image_size={SIZE}", *CHOICES],
    )
    return load(tmp_path / "run", "cpu")


@pytest.mark.parametrize("preset", ["cifar-ve", "cifar-vp"])
def test_a_checkpoint_gives_its_averaged_network(preset, tmp_path):
    made = generator(preset)
    model = imported(tmp_path, checkpoint(made.network, 0.01), preset)
    assert (model.config.encoder.name, model.config.data.name) == ("none", "none")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.1).add_(0.01)
        x, t = torch.randn(2, 3, SIZE, SIZE), torch.tensor([0.1, 0.9])
        expected = made(x, t, NO_TEXT)
        text = model.generator.condition(model.text_encoder.encode(["a red bird", ""]))
        torch.testing.assert_close(model.generator.eval()(x, t, text), expected)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    document = checkpoint(generator().network)
    with pytest.raises(UserError, match="does not fit the network"):
        imported(tmp_path, document, "cifar-vp")
    with pytest.raises(UserError, match="another network than the authors'"):
        imported(tmp_path, document, "tiny")
    shadow = document["ema"]["shadow_params"]
    for wrong in ({"shadow_params": shadow[:-1]}, {"shadow_params": [*shadow[1:], shadow[0]]}):
        with pytest.raises(UserError, match="not those of its network"):
            averaged({**document, "ema": wrong}, "file")
    for missing in ({}, {"ema": {}}, {"ema": {"shadow_params": ["x"]}}):
        with pytest.raises(UserError, match=r"no 'ema\.shadow_params'"):
            averaged({"model": document["model"], **missing}, "file")
    with pytest.raises(UserError, match="no 'model'"):
        averaged({"ema": document["ema"]}, "file")


# diffusers' folders

LEVELS = {
    "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1,
    "center_input_sample": True, "time_embedding_type": "fourier", "freq_shift": 0,
    "flip_sin_to_cos": True, "attention_head_dim": None, "norm_num_groups": None,
    "norm_eps": 1e-6, "mid_block_scale_factor": 1.41421356,
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
    "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
}  # fmt: skip


def folder(place, safe=True, **unet):
    torch.manual_seed(0)
    network = UNet2DModel(**{**LEVELS, **unet}).eval()
    scheduler = ScoreSdeVeScheduler(sigma_max=348.0)
    ScoreSdeVePipeline(network, scheduler).save_pretrained(place, safe_serialization=safe)
    return network


def test_a_folder_of_diffusers_gives_its_network(tmp_path):
    """The network's score is of images in [0, 1]; ours are twice as wide, and so is their noise."""
    network = folder(tmp_path / "theirs")
    model = load(tmp_path / "theirs", "cpu")
    assert model.config.model == "scoresde"
    generator, sigma = model.generator.eval(), torch.tensor([0.02, 300.0])
    assert generator.schedule.max_ratio == 2 * 348
    x = torch.rand(2, 3, 8, 8) + sigma.view(2, 1, 1, 1) * torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        score = network(x, sigma, return_dict=False)[0]
        eps = generator(2 * x - 1, 2 * sigma, NO_TEXT)
    torch.testing.assert_close(-eps / sigma.view(2, 1, 1, 1), score)


def test_an_imported_folder_is_the_same_model(tmp_path):
    folder(tmp_path / "theirs")
    import_weights("scoresde", [tmp_path / "theirs"], tmp_path / "run")
    models = [load(tmp_path / name, "cpu") for name in ("theirs", "run")]
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 9.0])
    with torch.no_grad():
        outputs = [model.generator.eval()(x, t, NO_TEXT) for model in models]
    assert torch.equal(*outputs)


def test_other_folders_are_refused(tmp_path):
    folder(tmp_path / "bin", safe=False)
    with pytest.raises(UserError, match=r"are \.bin, which is a pickle"):
        load(tmp_path / "bin")
    folder(tmp_path / "steps", time_embedding_type="positional")
    with pytest.raises(UserError, match="embeds steps"):
        load(tmp_path / "steps")
    early = tmp_path / "early"
    early.mkdir()
    (early / "config.json").write_text(json.dumps({"_class_name": "ScoreSdeVePipeline"}))
    with pytest.raises(UserError, match="very early diffusers"):
        load(early)
    index = tmp_path / "bin" / "model_index.json"
    document = json.loads(index.read_text())
    document["model"] = document.pop("unet")
    index.write_text(json.dumps(document))
    with pytest.raises(UserError, match="its parts are"):
        load(tmp_path / "bin")
