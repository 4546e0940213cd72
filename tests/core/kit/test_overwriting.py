"""What a wheel would overwrite: files, modules and commands of others, and of Python."""

import sys
import zipfile
from pathlib import Path

import click
import pytest

from t2i.core.errors import UserError
from t2i.core.kit.overwriting import overwritten


def data(path):
    return f"x-1.0.data/{path}"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"x": "", "x_y/__init__.py": ""}, []),
        ({"click/__init__.py": "raise"}, ["x would overwrite click/__init__.py of click"]),
        ({"click.py": ""}, ["x would overwrite click/__init__.py of click"]),
        ({"click/types/__init__.py": ""}, ["x would overwrite click/types.py of click"]),
        ({"click/core.abi3.so": ""}, ["x would overwrite click/core.py of click"]),
        ({data("purelib/click/core.py"): "1"}, ["x would overwrite click/core.py of click"]),
        ({data("platlib/click/core.py"): "1"}, ["x would overwrite click/core.py of click"]),
        (
            {"click/core.py": "1", "click/types.py": "1"},
            ["x would overwrite click/core.py of click (and 1 more of its files)"],
        ),
        ({"t2i/core/errors.py": ""}, ["x would overwrite t2i/core/errors.py of t2i-zoo"]),
        ({"t2i/new.py": ""}, ["x would overwrite t2i/new.py of t2i-zoo"]),
        (
            {data("scripts/python3"): ""},
            ["x would overwrite the command python3 of this environment"],
        ),
        ({data("scripts/pipeline"): ""}, []),
        (
            {"x-1.0.dist-info/entry_points.txt": "[console_scripts]\nt2i = x:main\n"},
            ["x would overwrite the command t2i of t2i-zoo"],
        ),
        ({"x.pth": "import x"}, ["x would run code whenever Python starts (x.pth)"]),
        (
            {data("purelib/x.pth"): "/tmp"},
            [f"x would run code whenever Python starts ({data('purelib/x.pth')})"],
        ),
        ({"x/x.pth": ""}, []),
        (
            {"usercustomize/__init__.py": ""},
            ["x would run code whenever Python starts (usercustomize/__init__.py)"],
        ),
        (
            {"click-99.egg-info/PKG-INFO": "Name: click"},
            ["x would pass for another package too (click-99.egg-info/PKG-INFO)"],
        ),
        (
            {data("data/pyvenv.cfg"): "home = /"},
            [f"x would overwrite {sys.prefix}/pyvenv.cfg of this environment"],
        ),
    ],
    ids=str,
)
def test_what_belongs_to_others(wheel, tmp_path, files, found):
    assert overwritten({"x": wheel(tmp_path, "x", files=files)}) == found


def test_what_is_the_same_or_ones_own_does_no_harm(wheel, tmp_path):
    same = Path(click.core.__file__).read_text()
    assert overwritten({"x": wheel(tmp_path, "x", files={"click/core.py": same})}) == []
    assert overwritten({"click": wheel(tmp_path, "click", files={"click/core.py": "new"})}) == []
    assert overwritten({}) == []


def test_a_wheel_that_is_none(tmp_path):
    (tmp_path / "x.whl").write_text("no")
    with pytest.raises(UserError, match=r"x\.whl: not a sound wheel"):
        overwritten({"x": tmp_path / "x.whl"})


def test_declarations_are_read_in_bounds(tmp_path):
    path = tmp_path / "x-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x-1.0.dist-info/entry_points.txt", b"#" * (1 << 21))
    with pytest.raises(UserError, match="2,097,152 bytes"):
        overwritten({"x": path})
