"""Signals, where a whole run would be too much."""

import os
import signal
import subprocess
import sys
import threading

import psutil

from t2i.core.engine.signals import stop_requests


def test_optional_work_is_left_when_a_signal_comes_and_not_begun_after_one():
    done = []
    with stop_requests() as stop:
        stop.optional(lambda: done.append("before"))
        stop.optional(lambda: (os.kill(os.getpid(), signal.SIGINT), done.append("too late")))
        stop.optional(lambda: done.append("after"))
        assert stop.number == signal.SIGINT
    assert done == ["before"]


def test_outside_optional_work_a_signal_is_only_noted():
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM


def test_the_signal_of_a_scheduler_never_ends_the_program_at_once():
    """SLURM sends SIGUSR1 before the time limit, and SIGTERM if saving takes too long."""
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.number == signal.SIGUSR1
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM


def test_other_threads_leave_signals_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with stop_requests():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


TWICE = """
import os, signal, multiprocessing
from t2i.core.engine.signals import stop_requests
with stop_requests():
    child = multiprocessing.get_context("fork").Process(target=signal.pause)
    child.start()
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    print("still here")
"""


def test_a_second_signal_ends_the_program_and_its_workers_at_once():
    ended = subprocess.run(
        [sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 130
    (pid,) = ended.stdout.split()
    assert not psutil.pid_exists(int(pid))
