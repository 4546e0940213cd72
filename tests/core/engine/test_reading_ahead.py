"""What happens to the data, or to the processes that load it, is not the model's fault."""

import multiprocessing
import os
import signal
from contextlib import contextmanager

import pytest

from t2i.core.engine import loader as loading
from t2i.core.engine.loader import Loader
from t2i.core.engine.reading_ahead import Readable
from t2i.core.errors import Crash, DataAway, T2IError
from t2i.core.interfaces.broken import sound
from t2i.core.interfaces.dataset import BrokenExample, Example
from t2i.core.interfaces.visits import Visit

MAIN = os.getpid()
PLAN = [[Visit(0, number)] for number in range(12)]


class Numbers(Readable):
    """The number of each visit; `at(number)` may do something first."""

    def __init__(self, at=lambda views, number: None):
        self.at = at

    def __getitem__(self, batch):
        self.at(self, batch[0].index)
        return batch[0].index


def read(views, workers, **more):
    told = []
    loader = Loader(views, iter(PLAN), workers, told.append, **more)
    try:
        return [next(loader) for _ in PLAN], told
    finally:
        loader.close()


def once(file, number=5):
    """Kills the process that reads a number, the first time."""

    def at(_, index):
        if index == number and not file.exists():
            file.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return at


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_was_killed_is_replaced_and_no_batch_is_lost(tmp_path, workers):
    found, told = read(Numbers(once(tmp_path / "killed")), workers)
    assert found == list(range(12))
    assert len(told) == 1
    assert "ended by SIGKILL (out of memory?" in told[0]


def test_large_batches_of_a_killed_worker_do_not_block_the_reader(tmp_path):
    """A worker that is killed in the midst of writing to the pipe leaves half a message there."""
    killed = tmp_path / "killed"

    class Large(Numbers):
        def __getitem__(self, batch):
            if batch[0].index == 3 and not killed.exists():
                killed.touch()  # by then what was read before fills the pipe
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(batch), bytes(2**20)

    found, _ = read(Large(), 1)
    assert [number for number, _ in found] == list(range(12))


def test_if_each_worker_is_killed_this_process_loads():
    def at(_, index):
        if index == 5 and os.getpid() != MAIN:
            os.kill(os.getpid(), signal.SIGKILL)

    found, told = read(Numbers(at), 1)
    assert found == list(range(12))
    assert 3 <= len(told) <= 5  # a batch between two deaths begins the count anew
    assert "loading without it" in told[-1]


def test_a_file_that_crashes_each_worker_is_an_error_that_names_it():
    def at(_, index):
        if index == 5:
            os.kill(os.getpid(), signal.SIGSEGV)

    with pytest.raises(T2IError, match=r"SIGSEGV 3 times .* number [45]: 't2i datasets check'"):
        read(Numbers(at), 1)


def test_a_dead_worker_interrupts_nothing_but_the_reading(tmp_path):
    """Torch's handler raises wherever the main thread is: in the midst of an update, too."""
    told, first_is_here = [], multiprocessing.Event()
    kill = once(tmp_path / "killed", 2)

    def at(views, index):
        if index == 2:  # which is read ahead: else the worker may be dead and replaced by then
            first_is_here.wait()
        kill(views, index)

    loader = Loader(Numbers(at), iter(PLAN), 1, told.append)
    try:
        found = [next(loader)]
        (worker,) = loader._ahead._iterator._workers
        first_is_here.set()
        worker.join(60)  # torch's handler would raise here
        assert not worker.is_alive()
        found += [next(loader) for _ in PLAN[1:]]
    finally:
        loader.close()
    assert found == list(range(12))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_plugin_comes_with_its_line_and_traceback(workers):
    def at(_, index):
        if index == 5:
            raise KeyError("colour")

    with pytest.raises(Crash, match=r"unexpected KeyError in .*: 'colour'") as caught:
        read(Numbers(at), workers)
    assert "in at" in caught.value.trace


# --- data that is away ----------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(loading, "RETRY", 0.0)


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_is_away_is_waited_for(tmp_path, hasty, workers):
    tries = tmp_path / "tries"
    waits = []

    def at(_, index):
        if index == 5 and (not tries.exists() or tries.stat().st_size < 4):
            with open(tries, "a") as file:
                file.write("x")
            raise DataAway("d/5.png: No such file or directory")

    @contextmanager
    def waiting():
        waits.append("begins")
        yield
        waits.append("ends")

    found, told = read(Numbers(at), workers, waiting=waiting)
    assert found == list(range(12))
    assert waits == ["begins", "ends"]
    assert told[0].startswith("warning: d/5.png: No such file or directory: waiting for the data")
    assert told[1] == "the data is back: going on"


def test_after_the_patience_what_is_away_is_broken(hasty, monkeypatch):
    monkeypatch.setattr(loading, "PATIENCE", 0.0)
    seen = []

    def at(views, index):
        if index in (5, 6) and views.patient:
            raise DataAway("away")
        seen.append((index, views.patient))

    found, told = read(Numbers(at), 0)
    assert found == list(range(12))
    assert [index for index, patient in seen if not patient][:2] == [5, 6]
    assert len(told) == 1


class Files:
    """A data set of files; those in `away` cannot be reached."""

    endless, max_broken, few_broken = False, 0.0, 0

    def __init__(self, *away, raw=False):
        self.away, self.raw = away, raw

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index in self.away and self.raw:
            raise FileNotFoundError(2, "No such file or directory", f"{index}.png")
        if index in self.away:
            raise BrokenExample(f"{index}.png", "No such file or directory", away=True)
        return Example(None, ("x",), str(index))


@pytest.fixture(params=[False, True], ids=["broken", "raw"])
def files(request, monkeypatch):
    monkeypatch.setattr("t2i.core.interfaces.broken.Dataset", Files)
    return lambda *away: Files(*away, raw=request.param)


def test_a_file_alone_is_broken_and_several_in_a_row_are_away(files):
    example, broken = sound(files(1, 2), 1, patient=True)
    assert (example.key, [error.where for error in broken]) == ("3", ["1.png", "2.png"])
    with pytest.raises(DataAway, match=r"1\.png"):
        sound(files(*range(10)), 1, patient=True)
    with pytest.raises(T2IError, match="broken so far"):
        sound(files(*range(10)), 1)
