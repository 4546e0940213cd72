"""Checkpoints of NCSN's authors: what is read of them, and what is refused."""

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.models.importing import import_weights
from t2i.core.models.loading import load
from t2i.plugins.models.ncsn.config import NCSNConfig
from t2i.plugins.models.ncsn.networks import NCSNGenerator

V1 = {
    "image_size": 32, "output": "score", "sigma_begin": 1.0, "levels": 3,
    "network": {"ngf": 4, "per_level": True},
}  # fmt: skip
V2 = {"image_size": 32, "output": "noise", "sigma_begin": 9.0, "levels": 3, "network": {"ngf": 4}}
OPTIMIZER = {"state": {0: {"step": 1}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}


def network_of(settings, seed, **network):
    torch.manual_seed(seed)
    settings = {**settings, "network": {**settings["network"], **network}}
    made = NCSNGenerator(NCSNConfig.of(settings, "test"), TextShape(1, 1))
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(0, 0.2)
    return made


def checkpoint_v2(made, averaged, sigmas=(9.0, 0.3, 0.01)):
    """What ermongroup/ncsnv2 saves: the average has no prefix and no sigmas."""
    model = {f"module.{name}": t for name, t in made.network.state_dict().items()}
    model["module.sigmas"] = torch.tensor(sigmas)
    average = {name: p.detach() for name, p in averaged.network.named_parameters()}
    return [model, OPTIMIZER, 3, 1000, average]


def same(made, path):
    """Whether a run samples with these weights."""
    model = load(path)
    x = torch.randn(1, 3, 32, 32)
    text = TextFeatures.of(sentence=torch.zeros(1, 1))
    t = torch.tensor([0.6])
    with torch.no_grad():
        torch.testing.assert_close(model.generator(x, t, text), made(x, t, text))
    return model.config


def test_a_checkpoint_of_ncsn(tmp_path):
    made = network_of(V1, 0)
    state = {f"module.{name}": t for name, t in made.network.state_dict().items()}
    torch.save([state, OPTIMIZER], tmp_path / "checkpoint_5.pth")
    import_weights("ncsn", [tmp_path / "checkpoint_5.pth"], tmp_path / "run")
    config = same(made, tmp_path / "run")
    assert (config.preset, config.encoder.name, config.settings.levels) == ("cifar-v1", "none", 3)
    assert (config.sampler.name, config.sampler.config.eps) == ("langevin", 2e-5)


@pytest.mark.parametrize("depth", ["plain", "deepest"])
def test_a_checkpoint_of_ncsnv2_gives_its_average(tmp_path, depth):
    made, averaged = (network_of(V2, seed, depth=depth) for seed in (0, 1))
    torch.save(checkpoint_v2(made, averaged), tmp_path / "c.pth")
    import_weights("ncsn", [tmp_path / "c.pth"], tmp_path / "run", preset="cifar-v2")
    settings = same(averaged, tmp_path / "run").settings
    assert (settings.sigma_begin, settings.levels, settings.network.depth) == (9.0, 3, depth)
    assert settings.sigma_end == pytest.approx(0.01)


def test_a_checkpoint_without_an_average(tmp_path):
    made = network_of(V2, 0)
    torch.save(checkpoint_v2(made, made)[:4], tmp_path / "c.pth")
    import_weights("ncsn", [tmp_path / "c.pth"], tmp_path / "run", preset="cifar-v2")
    same(made, tmp_path / "run")


def broken(part, value):
    def change(parts):
        parts[0][part] = value
        return parts

    return change


def without(part):
    def change(parts):
        del parts[0][part]
        return parts

    return change


@pytest.mark.parametrize(
    ("change", "preset", "message"),
    [
        (lambda parts: parts[0], "cifar-v2", "holds a dict, not a list"),
        (lambda parts: parts[2:], "cifar-v2", r"no list \[model, optimizer"),
        (lambda parts: [{"w": torch.zeros(1)}], "cifar-v2", "no RefineNet"),
        (lambda parts: parts, "cifar-v1", "a checkpoint of NCSNv2: use --preset cifar-v2"),
        (
            broken("module.sigmas", torch.tensor([9.0, 5.0, 0.01])),
            "cifar-v2",
            "no geometric sequence",
        ),
        (broken("module.sigmas", torch.tensor(9.0)), "cifar-v2", "no geometric sequence"),
        (broken("module.sigmas", torch.zeros(3)), "cifar-v2", "no geometric sequence"),
        (without("module.sigmas"), "cifar-v2", "no noise levels"),
        (broken("module.end_conv.weight", torch.zeros(1, 4, 3, 3)), "cifar-v2", "1 channel"),
        (broken("module.end_conv.weight", torch.tensor(1.0)), "cifar-v2", "another shape"),
        (broken("module.begin_conv.weight", torch.tensor(1.0)), "cifar-v2", "another shape"),
        (broken("module.res1.0.conv1.bias", torch.zeros(5)), "cifar-v2", "does not fit"),
    ],
)
def test_other_files_are_refused(tmp_path, change, preset, message):
    made = network_of(V2, 0)
    torch.save(change(checkpoint_v2(made, made)[:4]), tmp_path / "c.pth")
    with pytest.raises(UserError, match=message):
        import_weights("ncsn", [tmp_path / "c.pth"], tmp_path / "run", preset=preset)
    assert not (tmp_path / "run").exists()


def test_an_average_of_something_else_is_refused(tmp_path):
    made = network_of(V2, 0)
    parts = checkpoint_v2(made, made)
    parts[4] = {"other": torch.zeros(1)}
    torch.save(parts, tmp_path / "c.pth")
    with pytest.raises(UserError, match="'other', which its model lacks"):
        import_weights("ncsn", [tmp_path / "c.pth"], tmp_path / "run", preset="cifar-v2")


def test_two_files_are_one_too_many(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(UserError, match="2 were given"):
        import_weights("ncsn", [tmp_path / "a.pth"] * 2, tmp_path / "run")
