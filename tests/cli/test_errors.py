"""Every way to fail, as exit code and line."""

import errno

import click
import pytest
import torch

import t2i.cli.main as command
from t2i.cli.errors import explained
from t2i.core.errors import Interrupted, T2IError, UserError


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("what; remedy"), 2, "what; remedy"),
        (T2IError("ours"), 1, "ours"),
        (Interrupted("saved", 15), 143, "saved"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a"),
            2,
            "/a: Permission denied; choose another place",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "a file: No space left on device; free some space",
        ),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "/f/x"),
            2,
            "/f/x: Not a directory; a file is in",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            2,
            "out of memory (t2i); use a smaller --batch-size",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate"),
            2,
            "out of memory (t2i); use a smaller --batch-size",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, "out of memory (t2i); use a smaller"),
        (RuntimeError("shapes differ"), 1, "unexpected RuntimeError"),
        (
            OSError("a library's own"),
            1,
            "unexpected OSError in t2i: a library's own; T2I_DEBUG=1 shows more",
        ),
        (ValueError("odd"), 1, "unexpected ValueError in t2i: odd; T2I_DEBUG=1 shows more"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_failure_has_its_code_and_line(error, code, line):
    found_code, found = explained(error)
    assert (found_code, found[: len(line)]) == (code, line)


def failing(given):
    raise ValueError("first\nsecond \x1b[2J")


def test_a_bug_is_one_harmless_line_that_says_where(monkeypatch, capfd):
    monkeypatch.setattr("t2i.cli.main._run", failing)
    assert command.main([]) == 1
    err = capfd.readouterr().err
    assert err.startswith("error: unexpected ValueError in t2i.cli.main:")
    assert err.endswith(r"first second \x1b[2J; T2I_DEBUG=1 shows more" + "\n")
    assert "Traceback" not in err


def test_debugging_shows_the_traceback(monkeypatch, capfd):
    monkeypatch.setattr("t2i.cli.main._run", failing)
    monkeypatch.setenv("T2I_DEBUG", "1")
    assert command.main([]) == 1
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert "in failing" in err
