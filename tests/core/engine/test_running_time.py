"""The clock that a budget in minutes reads."""

from t2i.core.engine.running_time import RunningTime


class Machine:
    """A clock, and the processor time that a process has used."""

    def __init__(self):
        self.now = self.used = 0.0

    def passes(self, seconds, share=1.0):
        self.now += seconds
        self.used += share * seconds


def clock():
    machine = Machine()
    return machine, RunningTime(lambda: machine.now, lambda: machine.used)


def test_a_pause_is_not_charged():
    machine, running = clock()
    with running.watched():
        machine.passes(0.5)
        assert running() == 0.5
        machine.passes(3600, share=0)  # Ctrl-Z
        machine.passes(0.25)
        assert 0.4 < running() < 1
        machine.passes(0.5)
        assert 0.9 < running() < 1.5


def test_long_work_is_charged_in_whole():
    machine, running = clock()
    with running.watched():
        machine.passes(30)  # the interpreter's lock is held meanwhile
        assert running() == 30


def test_without_a_watch_no_pause_is_seen():
    machine, running = clock()
    machine.passes(30, share=0)  # a device works, and this process waits for it
    assert running() == 30


def test_waiting_is_left_out():
    machine, running = clock()
    machine.passes(1)
    with running.left_out():
        machine.passes(10)
    machine.passes(1)
    assert running() == 2
