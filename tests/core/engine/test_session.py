"""What a session sets in its process, and takes back."""

import subprocess
import sys

import pytest
import torch

from t2i.core.engine.reporting import Silent
from t2i.core.engine.session import session
from t2i.core.runs.configure import resolve_config

DENORMAL = 1e-39  # as float32
THREADS = """
import torch
from t2i.core.engine.session import flushed

torch.set_num_threads(2)
with flushed():
    print(int((torch.full((1 << 20,), 1e-38) * 0.1 == 0).sum()))
"""


def flushes():
    return not (torch.tensor(DENORMAL) * 1).item()


@pytest.mark.usefixtures("toy")
def test_denormal_numbers_are_0_in_a_session_and_no_longer_after_it():
    config = resolve_config("toy")
    assert not flushes()
    with session(config, Silent()):
        assert flushes()
    assert not flushes()
    with session(config, Silent()):
        with session(config, Silent()):
            pass
        assert flushes()


def test_they_are_0_in_all_threads_of_a_new_process():
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True)
    assert done.stdout == f"{1 << 20}\n", done.stderr
