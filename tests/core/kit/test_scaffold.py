"""`t2i plugins new`: names, places, and a package that the house's own rules accept. That it trains
and passes its checks is the tutorial's test (tests/docs)."""

import subprocess
import sys
import tomllib

import pytest

from t2i.core.errors import UserError
from t2i.core.kit.scaffold import TEMPLATE, write_package


def test_a_package_without_placeholders_that_lints(tmp_path):
    files = write_package("my-first-model", tmp_path / "new")
    assert len(files) == len(list(TEMPLATE.rglob("*.txt"))) >= 9
    assert all("{{" not in path.read_text() and "{{" not in str(path) for path in files)
    project = tomllib.loads((tmp_path / "new" / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["t2i"] == {"my-first-model": "my_first_model.plugin"}
    assert (tmp_path / "new" / "my_first_model" / "networks.py").is_file()
    assert (tmp_path / "new" / "tests" / "test_my_first_model.py").is_file()
    assert (
        "class MyFirstModelConfig"
        in (tmp_path / "new" / "my_first_model" / "config.py").read_text()
    )
    for command in (["check"], ["format", "--check"]):
        ruff = [
            sys.executable,
            "-m",
            "ruff",
            *command,
            "--isolated",
            "--line-length=120",
            str(tmp_path / "new"),
        ]
        done = subprocess.run(ruff, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Mine", "is no name for a plugin"),
        ("../x", "is no name for a plugin"),
        ("", "is no name for a plugin"),
        ("a.b", "is no name for a plugin"),
        ("class", "a word or a package that Python knows"),
        ("json", "a word or a package that Python knows"),
        ("dfgan", "the name 'dfgan' is taken"),
        ("t2i-zoo", "the name 't2i-zoo' is taken"),
    ],
)
def test_names_that_cannot_be(tmp_path, name, reason):
    with pytest.raises(UserError, match=reason):
        write_package(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(UserError, match="there already, and not empty"):
        write_package("mine", tmp_path)
