"""Installing and removing plugins: what pip would do, what of it would harm the host, and a real
environment."""

import json

import pytest

from t2i.core.errors import UserError
from t2i.core.kit import changes as module
from t2i.core.kit import packages
from t2i.core.kit.changes import Change, harm, host_packages
from t2i.core.kit.packages import Plan
from t2i.core.kit.targets import Target

HOOKED = """
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec

@hookimpl
def t2i_samplers():
    return [SamplerSpec(name="{name}", summary="s", config="a:b", build="a:c", families=("x",))]
"""

IDLE = """
from t2i.core.registry.hooks import hookimpl

@hookimpl
def t2i_samplers():
    return []
"""


@pytest.fixture
def world(monkeypatch):
    """t2i-zoo 1.0 needs art>=2 and brush; brush needs clay<3; moss is somebody else's."""
    needs = {
        "t2i-zoo": ["art>=2", "brush", 'wind; extra == "x"'],
        "brush": ["clay<3"],
        "moss": ["clay<2"],
    }
    versions = {"t2i-zoo": "1.0", "art": "2.1", "brush": "1.0", "clay": "2.0", "moss": "1.0"}
    monkeypatch.setattr(module, "installed", lambda: dict(versions))
    monkeypatch.setattr(module, "_requires", lambda name: needs.get(name, []))
    monkeypatch.setattr(module, "distribution_of", lambda name: versions.get(name))


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("changes", "requirements", "found"),
    [
        ([Change("mine", None, "1")], {}, []),
        ([Change("art", "2.1", "3.0")], {}, []),
        ([Change("art", "2.1", "1.9")], {}, ["t2i-zoo needs art>=2, and would have 1.9"]),
        ([Change("clay", "2.0", "3.1")], {}, ["brush needs clay<3, and would have 3.1"]),
        ([Change("clay", "2.0", "2.5")], {}, []),  # moss is harmed, which is not the host's
        ([Change("t2i-zoo", "1.0", "0.9")], {}, ["t2i-zoo itself would change from 1.0 to 0.9"]),
        (
            [Change("brush", "1.0", "2.0")],
            {"brush": ["art<2"]},
            ["brush needs art<2, and would have 2.1"],
        ),
        ([Change("brush", "1.0", "2.0"), Change("clay", "2.0", "4")], {"brush": ["clay>3"]}, []),
        (
            [Change("art", "2.1", "2.1")],  # a folder of somebody's that has this name
            {},
            ["art 2.1 would be replaced by another of that version"],
        ),
    ],
    ids=str,
)
def test_what_would_harm_the_host(changes, requirements, found):
    assert harm(changes, requirements) == found


@pytest.mark.usefixtures("world")
def test_the_hosts_packages_are_those_it_needs_directly_or_not():
    assert sorted(host_packages()) == ["art", "brush", "clay", "t2i-zoo"]


def test_harm_refuses_before_pip_is_called(monkeypatch):
    monkeypatch.setattr(packages, "run_pip", lambda *_: pytest.fail("pip was called"))
    chosen = Plan(
        Target("x", False, False),
        "x",
        [Change("art", "2.1", "1.9")],
        ["t2i-zoo needs art>=2, and would have 1.9"],
    )
    with pytest.raises(
        UserError, match=r"installing x would break .*: t2i-zoo needs art>=2.*--force"
    ):
        packages.install(chosen)


# --- a real environment ---------------------------------------------------------------------------


def test_a_wheel_is_installed_listed_and_removed(environment, wheel, tmp_path):
    path = wheel(
        tmp_path, "t2i-mine", files={"mine": HOOKED.format(name="mine")}, points={"mine": "mine"}
    )
    document = json.loads(environment.check("t2i", "install", "--json", path, cwd=tmp_path))
    plugin = {
        "name": "mine", "distribution": "t2i-mine", "version": "1.0",
        "registers": {"samplers": ["mine"]},
        "error": None,
    }  # fmt: skip
    change = {"name": "t2i-mine", "before": None, "after": "1.0", "url": path.as_uri()}
    assert document == {
        "package": "t2i-mine", "changes": [{**change, "author": "", "page": "", "summary": ""}],
        "harm": [], "version": "1.0", "plugins": [plugin],
    }  # fmt: skip
    assert plugin in json.loads(environment.check("t2i", "plugins", "--json", cwd=tmp_path))
    again = environment.check("t2i", "install", path, cwd=tmp_path)
    assert again == "t2i-mine 1.0: plugin 'mine' registers samplers: mine\n"
    assert (
        environment.check("t2i", "uninstall", "T2I_Mine", cwd=tmp_path) == "removed t2i-mine 1.0\n"
    )
    assert "mine" not in environment.check("t2i", "samplers", cwd=tmp_path).split()


@pytest.mark.slow
def test_what_would_break_the_host_is_refused_unless_forced(environment, wheel, tmp_path):
    index = tmp_path / "index"
    wheel(index, "click", "7.0", files={"t2i_not_click": ""})
    source = HOOKED.format(name="greedy")
    wheel(
        index,
        "t2i-greedy",
        requires=["click<8"],
        files={"greedy": source},
        points={"greedy": "greedy"},
    )
    where = {"PIP_FIND_LINKS": str(index)}
    done = environment("t2i", "install", "t2i-greedy", cwd=tmp_path, **where)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert any(line.startswith("change: t2i-greedy 1.0 (new)") for line in lines)
    assert any(line.startswith("change: click 8") and " -> 7.0: from" in line for line in lines)
    assert lines[-1].startswith(
        "error: installing t2i-greedy would break what is installed: t2i-zoo needs click>=8.1, and "
        "would have 7.0"
    )
    assert "t2i-greedy" not in environment.check("pip", "list", cwd=tmp_path, **where)
    dry = json.loads(
        environment.check(
            "t2i", "install", "--dry-run", "--json", "t2i-greedy", cwd=tmp_path, **where
        )
    )
    assert "t2i-zoo needs click>=8.1, and would have 7.0" in dry["harm"]
    forced = environment("t2i", "install", "--force", "--yes", "t2i-greedy", cwd=tmp_path, **where)
    assert forced.returncode == 0, forced.stderr
    environment.check("pip", "uninstall", "--yes", "t2i-greedy", "click", cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["uninstall", "t2i-zoo"], "error: t2i-zoo is the host itself"),
        (
            ["uninstall", "numpy"],
            "error: numpy is no plugin of t2i: 'pip uninstall numpy' removes it",
        ),
        (["uninstall", "nothing-such"], "error: no package is named 'nothing-such'"),
        (
            ["install", "nothing-such"],
            "error: pip cannot install 'nothing-such': No matching distribution found",
        ),
        (["install", "./absent.whl"], "error: ./absent.whl: no such file or folder"),
        (["install", "numpy"], "error: numpy "),
    ],
)
def test_refusals_are_one_line_and_exit_2(environment, tmp_path, arguments, line):
    done = environment("t2i", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(line), done.stderr


@pytest.mark.slow
def test_what_registers_nothing_or_is_broken_is_not_installed(environment, wheel, tmp_path):
    for name, source, points, reason in (
        ("plain", "", None, "plain is no plugin of t2i (it has no entry point in the group 't2i')"),
        ("t2i-idle", IDLE, {"idle": "t2i_idle"}, "t2i-idle 1.0 registers nothing: it is no plugin"),
        (
            "t2i-bad",
            "raise ImportError('no luck')",
            {"bad": "t2i_bad"},
            "t2i-bad 1.0 is broken: plugin 'bad': ImportError: no luck; nothing was installed",
        ),
    ):
        path = wheel(tmp_path, name, files={name.replace("-", "_"): source}, points=points)
        done = environment("t2i", "install", path, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[-1].startswith(f"error: {reason}"), done.stderr
        assert name not in environment.check("pip", "list", cwd=tmp_path)
    done = environment("t2i", "install", "--force", path, cwd=tmp_path)
    assert done.returncode == 2
    assert "t2i-bad is installed, but broken: plugin 'bad': ImportError: no luck" in done.stderr
    assert environment.check("t2i", "uninstall", "t2i-bad", cwd=tmp_path) == "removed t2i-bad 1.0\n"
