"""The registry: what plugins declare, where it came from, and what happens when a plugin is broken."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from t2i.core.errors import T2IError, UserError
from t2i.core.hooks import hookimpl
from t2i.core.registry import Registry
from t2i.core.specs import SamplerSpec


def sampler(name="mine", **changes):
    return SamplerSpec(**{"name": name, "summary": "s", "config": "a:b", "build": "a:c", "families": ("x",)} | changes)


class Plugin:
    """A plugin whose one hook returns (or does) what it is given."""

    def __init__(self, returns):
        self.returns = returns

    @hookimpl
    def t2i_samplers(self):
        return self.returns() if callable(self.returns) else self.returns


class Point:
    """An entry point of a distribution that is not installed."""

    def __init__(self, name, load, distribution="some-package"):
        self.name, self.load = name, load
        self.dist = SimpleNamespace(name=distribution, version="1.2")


def test_specifications_are_found_with_their_distribution():
    registry = Registry()
    registry.load([Point("p", lambda: Plugin([sampler()]))])
    assert registry.samplers["mine"].families == ("x",)
    assert str(registry.samplers.origin("mine")) == "plugin 'p' of some-package 1.2"
    assert registry.plugins[0].names == {"samplers": ["mine"]}
    assert registry.broken() == []


def test_two_plugins_with_one_name_are_refused_naming_both_distributions():
    registry = Registry()
    registry.load(
        [
            Point("a", lambda: Plugin([sampler(), sampler("other")]), "one"),
            Point("b", lambda: Plugin([sampler()]), "two"),
            Point("c", lambda: Plugin([sampler()]), "three"),
        ]
    )
    with pytest.raises(UserError, match=r"two plugins.*'mine'.*one 1\.2.*two 1\.2"):
        registry.samplers["mine"]
    assert "mine" not in [spec.name for spec in registry.samplers]
    assert registry.samplers["other"]
    assert [plugin.origin.plugin for plugin in registry.broken()] == ["b", "c"]


def test_unknown_name_names_the_nearest():
    registry = Registry()
    registry.register(Plugin([sampler("direct")]), "p")
    with pytest.raises(UserError, match=r"no sampler is named 'drect'; did you mean 'direct'\?"):
        registry.samplers["drect"]


def raising(error):
    def load():
        raise error

    return load


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (raising(ImportError("no module named 'x'\nsecond line")), r"^ImportError: no module named 'x'$"),
        (raising(SystemExit(3)), "SystemExit"),
        (lambda: Plugin(raising(RuntimeError("boom"))), "RuntimeError: boom"),
        (lambda: Plugin("nonsense"), "t2i_samplers returned str, not a list of SamplerSpec"),
        (lambda: Plugin([42]), "returned a int in its list"),
        (lambda: Plugin([sampler("Not A Name")]), "is no name"),
        (lambda: Plugin([sampler("../../x")]), "is no name"),
    ],
)
def test_a_broken_plugin_is_named_once_with_its_reason_and_the_others_work(load, reason):
    registry = Registry()
    registry.load([Point("bad", load), Point("good", lambda: Plugin([sampler()]))])
    (broken,) = registry.broken()
    assert broken.origin.plugin == "bad"
    assert re.search(reason, broken.error)
    assert registry.samplers["mine"]


def test_nothing_of_a_half_sound_plugin_is_registered():
    registry = Registry()
    registry.load([Point("bad", lambda: Plugin([sampler("first"), 42]))])
    assert list(registry.samplers) == []


def test_strict_raises(monkeypatch):
    monkeypatch.setenv("T2I_STRICT", "1")
    with pytest.raises(T2IError, match=r"plugin 'bad' of some-package 1\.2: ValueError: no"):
        Registry().load([Point("bad", raising(ValueError("no")))])


def test_a_wrong_hook_signature_is_reported():
    class Wrong:
        @hookimpl
        def t2i_samplers(self, unexpected):
            return []

    registry = Registry()
    registry.load([Point("wrong", Wrong), Point("good", lambda: Plugin([sampler()]))])
    assert [plugin.origin.plugin for plugin in registry.broken()] == ["wrong"]
    assert registry.samplers["mine"]


def test_listing_the_built_in_plugins_imports_nothing_heavy():
    code = (
        "import sys; from t2i.core.registry import registry; r = registry(); assert r.models['ldm'];"
        "print([m for m in ('torch', 'numpy', 'pydantic', 'diffusers', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_named_plugins_load(monkeypatch):
    from t2i.core.registry import registry

    monkeypatch.setenv("T2I_PLUGINS", "direct,shapes")
    assert [plugin.origin.plugin for plugin in registry.__wrapped__().plugins] == ["direct", "shapes"]
    monkeypatch.setenv("T2I_PLUGINS", "shappes")
    with pytest.raises(UserError, match=r"did you mean 'shapes'\?"):
        registry.__wrapped__()
