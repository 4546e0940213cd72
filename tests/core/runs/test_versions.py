"""The range of versions that is tested: where it is declared, that it is whole, and what lies
outside of it."""

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from t2i.core.runs import versions

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def declared(*extras):
    texts = [
        *PROJECT["dependencies"],
        *(text for extra in extras for text in PROJECT["optional-dependencies"][extra]),
    ]
    return {canonicalize_name(need.name): need for need in map(Requirement, texts)}


def printed(end):
    """What `.ci/versions.py` prints for one end of the range: {name: version}."""
    script = [sys.executable, ROOT / ".ci" / "versions.py", end]
    lines = subprocess.run(script, check=True, capture_output=True, text=True).stdout.splitlines()
    return {
        canonicalize_name(name): version for name, version in (line.split("==") for line in lines)
    }


def test_the_newest_tested_versions_are_those_of_every_package_needed_and_within_its_bounds():
    needs, newest = declared("tensorboard"), versions.newest_tested()
    assert newest.keys() == needs.keys()
    assert [
        str(need) for name, need in needs.items() if not need.specifier.contains(newest[name])
    ] == []


def test_the_lowest_versions_are_the_declared_bounds_of_every_package():
    needs, pins = declared("test"), printed("lowest")
    assert pins.keys() == needs.keys()
    for name, need in needs.items():
        assert f">={pins[name]}" in str(need.specifier).split(",")


def test_noting_what_is_tested_notes_what_is_installed():
    noted = printed("tested")
    here = versions.installed()
    assert noted == {name: Version(here[name]).public for name in declared("tensorboard")}


@pytest.fixture
def world(monkeypatch, tmp_path):
    """`world(art="1.0")` installs packages of which t2i needs art>=1.5, and was tested with at most
    2.1."""

    def install(**packages):
        def version(name):
            if name not in packages:
                raise PackageNotFoundError(name)
            return packages[name]

        needs = ["Art>=1.5", "wind>=1; extra == 'tensorboard'", "ruff>=1; extra == 'test'"]
        monkeypatch.setattr(versions, "requires", lambda _: needs)
        monkeypatch.setattr(versions, "version", version)
        monkeypatch.setattr(versions, "TESTED", tmp_path / "tested.txt")
        versions.TESTED.write_text("Art==2.1\nwind==3\n")
        versions._version.cache_clear()

    yield install
    versions._version.cache_clear()


@pytest.mark.parametrize("version", ["1.5", "1.5.0+cpu", "2.0rc1", "2.1", "2.1.0", "2.1.0+cu130"])
def test_versions_within_the_range_are_tested(world, version):
    world(art=version, wind="3")
    assert versions.installed() == {"art": version, "wind": "3"}
    assert versions.untested() == {}


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("1.4.9", "t2i needs >=1.5"),
        ("1.5rc1", "t2i needs >=1.5"),
        ("2.1.1", "newer than 2.1"),
        ("2.2.0.dev1+cpu", "newer than 2.1"),
        ("10.0", "newer than 2.1"),
    ],
)
def test_versions_outside_of_the_range_are_named_with_the_reason(world, version, reason):
    world(art=version, wind="2")
    assert versions.untested() == {"art": reason}


def test_what_is_not_installed_or_not_needed_is_not_named(world):
    world(ruff="0.1")
    assert versions.installed() == {}
    assert versions.untested() == {}
