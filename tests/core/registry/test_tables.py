"""The registry: what plugins declare, where it came from, and what happens when a plugin is
broken."""

import re
import subprocess
import sys

import pytest

from t2i.core.errors import T2IError, UserError
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec
from t2i.core.registry.tables import HOST, Registry, installed_points


def sampler(name="mine", **changes):
    return SamplerSpec(
        **{"name": name, "summary": "s", "config": "a:b", "build": "a:c", "families": ("x",)}
        | changes
    )


class Plugin:
    """A plugin whose one hook returns (or does) what it is given."""

    def __init__(self, returns):
        self.returns = returns

    @hookimpl
    def t2i_samplers(self):
        return self.returns() if callable(self.returns) else self.returns


class Misspelt:
    @hookimpl
    def t2i_smaplers(self):
        return []


class Point:
    """An entry point of a distribution that is not installed."""

    def __init__(self, name, load, distribution="some-package"):
        self.name, self.load, self.module = name, load, "some_package.plugin"
        self.dist = type("Distribution", (), {"name": distribution, "version": "1.2"})()


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


def test_a_name_of_ours_stays_ours_and_the_plugin_that_claims_it_is_named():
    registry = Registry()
    registry.load(
        [
            Point("ours", lambda: Plugin([sampler(summary="ours")]), HOST),
            Point("theirs", lambda: Plugin([sampler(summary="theirs"), sampler("more")]), "other"),
        ]
    )
    assert registry.samplers["mine"].summary == "ours"
    assert registry.samplers["more"]
    (broken,) = registry.broken()
    assert broken.error == "its sampler 'mine' is also registered by plugin 'ours' of t2i-zoo 1.2"
    assert broken.names == {"samplers": ["more"]}


def test_ours_come_first_whatever_the_names_are():
    points = installed_points()
    ours = [point.dist.name == HOST for point in points]
    assert ours == sorted(ours, reverse=True)
    assert sum(ours) > 5


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
        (
            raising(ImportError("no module named 'x'\nsecond line")),
            r"^ImportError: no module named 'x'$",
        ),
        (raising(SystemExit(3)), "SystemExit"),
        (lambda: Plugin(raising(RuntimeError("boom"))), "RuntimeError: boom"),
        (lambda: Plugin("nonsense"), "t2i_samplers returned str, not a list of SamplerSpec"),
        (lambda: Plugin([42]), "returned a int in its list"),
        (lambda: Plugin([sampler("Not A Name")]), "is no name"),
        (lambda: Plugin([sampler("../../x")]), "is no name"),
        (lambda: Plugin([sampler(families="x")]), "families of 'mine' is 'x', not tuple"),
        (lambda: Plugin([sampler(summary=None)]), "summary of 'mine' is None, not str"),
        (lambda: Plugin([sampler(default="yes")]), "default of 'mine' is 'yes', not bool"),
        (lambda: 42, "it has no hook: mark the functions"),
        (lambda: Misspelt(), "t2i_smaplers is no hook of t2i; did you mean 't2i_samplers'"),
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
    (broken,) = registry.broken()
    assert broken.origin.plugin == "wrong"
    assert "t2i_samplers(self, unexpected)" in broken.error or "'unexpected'" in broken.error
    assert registry.samplers["mine"]


def test_a_distribution_without_a_name_or_with_unreadable_entry_points_hinders_nobody(
    tmp_path, monkeypatch
):
    for name, files in {
        "nameless": {"METADATA": "Metadata-Version: 2.1\n", "entry_points.txt": "[t2i]\nx = x\n"},
        "garbled": {
            "METADATA": "Name: garbled\nVersion: 1\n",
            "entry_points.txt": "[t2i]\nno equals sign\n",
        },
    }.items():
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert {point.dist.name for point in installed_points()} >= {HOST}


def test_listing_the_built_in_plugins_imports_nothing_heavy():
    code = (
        "import sys; from t2i.core.registry.tables import registry; r = registry(); assert "
        "r.models['ldm'];"
        "print([m for m in ('torch', 'numpy', 'pydantic', 'diffusers', 'rich') if m in "
        "sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_named_plugins_load(monkeypatch):
    from t2i.core.registry.tables import registry

    monkeypatch.setenv("T2I_PLUGINS", "direct,shapes")
    assert [plugin.origin.plugin for plugin in registry.__wrapped__().plugins] == [
        "direct",
        "families",
        "shapes",
    ]
    monkeypatch.setenv("T2I_PLUGINS", "shappes")
    with pytest.raises(UserError, match=r"did you mean 'shapes'\?"):
        registry.__wrapped__()
