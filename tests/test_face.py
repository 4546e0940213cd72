"""`import t2i`: everything public by one import, which costs next to nothing."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import t2i


@pytest.mark.parametrize("name", t2i.__all__)
def test_every_public_name_is_there(name):
    assert getattr(t2i, name) is not None
    assert name in dir(t2i)


def test_it_is_sorted_and_says_its_version():
    assert list(t2i.__all__) == sorted(set(t2i.__all__))
    assert t2i.__version__ == version("t2i-zoo")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 't2i' has no attribute 'lode'"):
        t2i.lode  # noqa: B018


def test_importing_it_imports_nothing_else():
    code = "import sys, t2i; print([m for m in ('torch', 'numpy', 'pydantic', 'pluggy', 't2i.core') if m in sys.modules])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
