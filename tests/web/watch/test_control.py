"""Stopping a run reaches the process that holds its lock, and no other."""

import os
import select
import signal
import subprocess
import sys

import pytest

from t2i.core.errors import UserError
from t2i.core.io.locks import LOCK, folder_lock
from t2i.core.runs.folder import Run
from t2i.web.watch import control
from t2i.web.watch.control import RESUME_LOG, Resumed, holder, stop

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
HOLD = """
import os, sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
child = os.fork()  # as a loader's worker, which inherits the lock's descriptor
if not child:
    time.sleep(60)
    os._exit(0)
try:
    print(child, flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    os.kill(child, 9)
    print("stopped", flush=True)
"""
OPEN = "import sys, time; file = open(sys.argv[1], 'a'); print('open', flush=True); time.sleep(60)"


def line(process):
    assert select.select([process.stdout], [], [], 30)[0], "the process says nothing"
    return process.stdout.readline().strip()


@pytest.fixture
def start(tmp_path):
    begun = []

    def run(code):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / LOCK)], stdout=subprocess.PIPE, text=True
        )
        begun.append(process)
        return process

    yield run
    for process in begun:
        process.kill()
        process.wait(30)
        process.stdout.close()


def test_sigint_reaches_the_holder_alone(start, tmp_path):
    training = start(HOLD)
    assert int(line(training)) != training.pid
    bystander = start(OPEN)  # it has the lock's file open, without the lock
    assert line(bystander) == "open"
    assert holder(tmp_path / LOCK) == training.pid
    assert stop(Run(tmp_path)) == training.pid
    assert line(training) == "stopped"
    assert training.wait(30) == 0
    assert bystander.poll() is None
    with pytest.raises(UserError, match="no process"):
        stop(Run(tmp_path))


def test_the_page_itself_is_never_stopped(tmp_path):
    with folder_lock(tmp_path), pytest.raises(UserError, match="this page holds its lock"):
        stop(Run(tmp_path))


def test_no_lock_no_signal(tmp_path):
    with pytest.raises(UserError, match="no process trains"):
        stop(Run(tmp_path))


def test_a_resumed_run_has_a_process_of_its_own_and_a_log(tmp_path, monkeypatch):
    assert control.COMMAND[-2:] == ("train", "--resume")
    code = "import sys; print('error: damaged', sys.argv[1], file=sys.stderr); sys.exit(2)"
    monkeypatch.setattr(control, "COMMAND", (sys.executable, "-c", code))
    resumed = Resumed()
    log = resumed.start(Run(tmp_path))
    process = resumed._processes[tmp_path]
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert process.wait(120) == 2
    assert log == tmp_path / RESUME_LOG
    assert resumed.complaint(Run(tmp_path)) == f"error: damaged {tmp_path}"
    assert resumed.complaint(Run(tmp_path / "other")) == ""


def test_a_run_that_is_trained_is_not_resumed(start, tmp_path):
    training = start(HOLD)
    line(training)
    with pytest.raises(UserError, match="trains in it already"):
        Resumed().start(Run(tmp_path))
    training.send_signal(signal.SIGINT)
    assert line(training) == "stopped"
