"""What reaches the terminal."""

import os
import warnings

import pytest

from t2i.core.io.terminal import printable, quiet


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 你 😀 [red]", "plain é 你 😀 [red]"),
        ("a\n b\t c ", "a b c"),
        ("\x1b[2J\x07\x00\x7f", r"\x1b[2J\x07\x00\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202ecba\u200b", r"abc\u202ecba\u200b"),
        ("\ud800", r"\ud800"),
    ],
)
def test_nothing_that_is_printed_can_command_the_terminal(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()


@pytest.fixture
def surroundings(monkeypatch):
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "HF_HUB_VERBOSITY", "T2I_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with warnings.catch_warnings():
        warnings.resetwarnings()
        yield


def warned(module):
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn_explicit("old", FutureWarning, "file.py", 1, module=module)
    return len(caught)


@pytest.mark.usefixtures("surroundings")
def test_libraries_speak_of_errors_only_and_others_still_speak():
    os.environ["DIFFUSERS_VERBOSITY"] = "info"
    quiet()
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"
    assert os.environ["DIFFUSERS_VERBOSITY"] == "info"  # what the user has set stays
    assert [warned(module) for module in ("torch.nn", "diffusers", "torchy", "t2i.core")] == [
        0,
        0,
        1,
        1,
    ]


@pytest.mark.usefixtures("surroundings")
def test_debugging_hears_all():
    os.environ["T2I_DEBUG"] = "1"
    quiet()
    assert "TRANSFORMERS_VERBOSITY" not in os.environ
    assert warned("torch.nn") == 1
