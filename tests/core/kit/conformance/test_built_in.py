"""Everything that is built in keeps its promises."""

import pytest

from t2i.core.registry.tables import HOST, registry
from tests.small import SMALL

ours = [plugin for plugin in registry().plugins if plugin.origin.distribution == HOST]


def names(kind):
    return sorted(name for plugin in ours for name in plugin.names.get(kind, []))


TWINS = {"ddim"}  # ddpm's network and training, drawn with another sampler
SIBLINGS = {
    "cgan", "gancls", "stackganv2", "dmgan", "biggan", "xmcgan", "cvaegan", "edm", "scoresde",
    "realnvp", "tarflow", "parti", "vqgan", "vqvae", "glide", "dalle2", "deepfloyd",
}  # fmt: skip
"""Models that share trainer and sampler with one that every run of the tests checks whole."""


def smaller(models, only=()):
    """Marks a test of models, with networks that are smaller than those of the tiny presets."""

    def marked(test):
        for name in sorted(models):
            test = pytest.mark.t2i(name, kind="models", sets=SMALL[name], only=only)(test)
        return test

    return marked


@smaller(set(names("models")) - TWINS - SIBLINGS)
def test_models(t2i_check):
    t2i_check()


@smaller(SIBLINGS, only=["builds", "samplers"])
def test_siblings(t2i_check):
    t2i_check()


@pytest.mark.slow
@smaller(SIBLINGS)
def test_siblings_train(t2i_check):
    t2i_check()


@pytest.mark.slow
@pytest.mark.t2i(*sorted(set(names("models")) - TWINS), kind="models")
def test_tiny_presets(t2i_check):
    t2i_check()


@pytest.mark.t2i(*TWINS, kind="models", only=["builds", "samplers"])
def test_twins(t2i_check):
    t2i_check()


@pytest.mark.slow
@pytest.mark.t2i(*TWINS, kind="models")
def test_twins_train(t2i_check):
    t2i_check()


@pytest.mark.t2i(*sorted(plugin.origin.plugin for plugin in ours), kind="plugins")
def test_plugins(t2i_check):
    t2i_check()


@pytest.mark.t2i(*names("encoders"), kind="encoders")
def test_encoders(t2i_check):
    t2i_check()


@pytest.mark.t2i(*names("datasets"), kind="datasets")
def test_datasets(t2i_check):
    t2i_check()


@pytest.mark.t2i(*names("features"), kind="features")
def test_features(t2i_check):
    t2i_check()


@pytest.mark.t2i(*names("metrics"), kind="metrics")
def test_metrics(t2i_check):
    t2i_check()


@pytest.mark.t2i(*names("benchmarks"), kind="benchmarks")
def test_benchmarks(t2i_check):
    t2i_check()


@pytest.mark.t2i(*names("downloads"), kind="downloads")
def test_downloads(t2i_check):
    t2i_check()


@pytest.mark.slow
@pytest.mark.t2i(*names("samplers"), kind="samplers")
def test_samplers(t2i_check):
    t2i_check()
