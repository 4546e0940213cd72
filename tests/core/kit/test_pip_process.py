"""What of the user's settings reaches pip, and the reason why it failed."""

import os

import pytest

from t2i.core.errors import UserError
from t2i.core.kit import pip_process
from t2i.core.kit.pip_process import environment, reason


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without settings of pip."""
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "xdg"))
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    return tmp_path / ".config" / "pip" / "pip.conf"


def of_pip(**more):
    return {key: value for key, value in environment(**more).items() if key.startswith("PIP_")}


def test_only_what_says_how_packages_are_reached_counts(home, monkeypatch):
    home.write_text(
        "[global]\nproxy = http://p\nquiet = 3\ntarget = /elsewhere\nindex_url = http://one\n"
        "[install]\nindex-url = http://two\nuser = true\nno-deps = yes\npre = 1\n"
        "[freeze]\ncert = x\n"
    )
    kept = {"PIP_PROXY": "http://p", "PIP_INDEX_URL": "http://two"}
    assert of_pip().items() >= kept.items()
    assert not {"PIP_QUIET", "PIP_TARGET", "PIP_USER", "PIP_NO_DEPS", "PIP_PRE"} & {*of_pip()}
    assert of_pip()["PIP_CONFIG_FILE"] == os.devnull
    for name in (
        "VERBOSE",
        "TARGET",
        "REQUIREMENT",
        "PYTHON",
        "target",
        "DRY_RUN",
        "EXTRA_INDEX_URL",
    ):
        monkeypatch.setenv(f"PIP_{name}", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://three")
    found = of_pip()
    assert (found["PIP_INDEX_URL"], found["PIP_EXTRA_INDEX_URL"]) == ("http://three", "1")
    assert not {"PIP_VERBOSE", "PIP_TARGET", "PIP_target", "PIP_REQUIREMENT", "PIP_PYTHON"} & {
        *found
    }
    assert {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"}.isdisjoint(of_pip(sources=False))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert "PIP_PROXY" not in of_pip()
    home.write_text("no section")
    monkeypatch.delenv("PIP_CONFIG_FILE")
    with pytest.raises(UserError, match=r"pip\.conf: pip cannot read it"):
        environment()


def test_the_python_path_does_not_depend_on_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", "lib", str(tmp_path)]))
    assert environment()["PYTHONPATH"] == str(tmp_path)


def test_without_pip_the_remedy_is_told(monkeypatch):
    monkeypatch.setattr(pip_process, "distribution_of", lambda _: None)
    with pytest.raises(UserError, match=r"has no pip: .* -m ensurepip"):
        pip_process.run_pip(["list"], "x")


BUILD = """
  error: subprocess-exited-with-error
  
  \u00d7 Getting requirements to build wheel did not run successfully.
  │ exit code: 1
  ╰─> [18 lines of output]
      Traceback (most recent call last):
        File "setup.py", line 1, in <module>
      RuntimeError: CUDA is missing
      [end of output]
  
  note: This error originates from a subprocess, and is likely not a problem with pip.
error: subprocess-exited-with-error

\u00d7 Getting requirements to build wheel did not run successfully.
╰─> See above for output.

note: This error originates from a subprocess, and is likely not a problem with pip.
"""
CONFLICT = """
ERROR: Cannot install a==1 and b==1 because these package versions have conflicting dependencies.

The conflict is caused by:
    a 1 depends on c<2
    b 1 depends on c>2

To fix this you could try to:
1. loosen the range of package versions you've specified

ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/
"""
AWAY = """
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError: refused': /x/
ERROR: Could not find a version that satisfies the requirement x (from versions: none)
ERROR: No matching distribution found for x
"""
PYTHON = """
ERROR: Ignored the following versions that require a different python version: 2 Requires-Python >=9
ERROR: Could not find a version that satisfies the requirement x==2 (from versions: 1)
ERROR: No matching distribution found for x==2
"""
CRASH = """
ERROR: Exception:
Traceback (most recent call last):
  File "x.py", line 1, in <module>
BackendUnavailable: Cannot import 'hatchling.build'
"""


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        (BUILD, "RuntimeError: CUDA is missing (Getting requirements to build wheel)"),
        (
            CONFLICT,
            "Cannot install a==1 and b==1 because these package versions have conflicting "
            "dependencies.; a 1 depends on c<2, b 1 depends on c>2",
        ),
        (
            AWAY,
            "No matching distribution found for x; the index cannot be reached: "
            "'NewConnectionError: refused': /x/",
        ),
        (
            PYTHON,
            "Ignored the following versions that require a different python version: 2 "
            "Requires-Python >=9; Could not find a version that satisfies the requirement x==2 "
            "(from versions: 1); No matching distribution found for x==2",
        ),
        (CRASH, "BackendUnavailable: Cannot import 'hatchling.build'"),
        ("", "no reason given"),
        ("ERROR: \x1b[31mred", "\\x1b[31mred"),
    ],
)
def test_pips_own_reason(stderr, line):
    assert reason(stderr) == line
