"""The batch that fits: a meter of which the answer is known, and memory that runs out."""

import sys

import pytest
import torch

from t2i.core.engine import fitting, precision
from t2i.core.engine.automatic import Training, resolve
from t2i.core.engine.fitting import SHARE, CudaMeter, meter_of
from t2i.core.errors import UserError

pytestmark = pytest.mark.usefixtures("toy")
BASE, IMAGE = 1000, 7


class KnownMeter:
    """A step takes BASE bytes and IMAGE bytes an image. Above `breaks` images memory runs out, and
    `curve` adds what a straight line does not foresee."""

    def __init__(self, free, breaks=10**9, curve=0.0):
        self.whole, self.breaks, self.curve = free, breaks, curve
        self.tried = []

    def free(self):
        return self.whole

    def peak(self, work):
        toy = sys.modules["t2i_toy"].Trainer
        step, seen = toy.step, []

        def measured(trainer, batch, engine):
            seen.append(len(batch.images))
            if seen[-1] > self.breaks:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return step(trainer, batch, engine)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(toy, "step", measured)
            work()
        assert len(set(seen)) == 1
        assert len(seen) == 2  # the second step has the optimizers' tensors
        self.tried.append(seen[0])
        return BASE + IMAGE * seen[0] + self.curve * seen[0] ** 2


def chosen(meter, *sets, **options):
    said = []
    wanted = Training("toy", None, options or {"batch_size": "auto"}, sets=sets)
    return resolve(wanted, said.append, meter).settings, said


@pytest.fixture
def endless(toy, monkeypatch):
    monkeypatch.setattr(sys.modules["t2i_toy"].data, "endless", True)


def free_for(images):
    return round((BASE + IMAGE * images) / SHARE) + 1


def test_the_largest_batch_that_fits_is_a_multiple_of_eight_below_the_known_answer(endless):
    settings, said = chosen(KnownMeter(free_for(100)))
    assert settings.batch_size == 96  # 100 rounded down
    assert said == [
        "batch size 96 (auto): it takes 1.7e-06 of 2e-06 GB; learning rates are unchanged"
    ]
    assert settings.lr == 0.01


@pytest.mark.parametrize(("room", "batch"), [(3, 2), (5, 4), (8, 8), (17, 16), (4_000_000, 40)])
def test_small_and_huge_memories(endless, room, batch, monkeypatch):
    monkeypatch.setattr(fitting, "MOST", 40)
    assert chosen(KnownMeter(free_for(room)))[0].batch_size == batch


def test_where_the_line_promises_too_much_a_smaller_batch_is_tried(endless):
    meter = KnownMeter(free_for(100), breaks=60)
    assert chosen(meter)[0].batch_size == 48  # 96 and 72 ran out of memory, then 48 fitted
    curved = KnownMeter(free_for(100), curve=0.05)
    settings, _ = chosen(curved)
    assert curved.tried[:3] == [2, 4, 8]
    assert (
        BASE + IMAGE * settings.batch_size + 0.05 * settings.batch_size**2 <= SHARE * curved.whole
    )
    assert settings.batch_size >= 64


def test_memory_that_runs_out_among_the_probes(endless):
    assert chosen(KnownMeter(free_for(100), breaks=5))[0].batch_size == 4
    with pytest.raises(UserError, match=r"stage only: not even 2 images fit into .* GB: choose"):
        chosen(KnownMeter(free_for(100), breaks=1))
    with pytest.raises(UserError, match=r"2 images need .* GB are free: choose a smaller preset"):
        chosen(KnownMeter(BASE))


def test_a_finite_data_set_bounds_the_batch():
    settings, said = chosen(KnownMeter(free_for(100)))
    assert settings.batch_size == 10
    assert "as many as the data set has" in said[0]


def test_parts_keep_the_batch_and_are_as_few_as_fit(endless):
    meter = KnownMeter(free_for(9))
    settings, said = chosen(meter, "batch_size=24", accumulate="auto")
    assert (settings.batch_size, settings.accumulate) == (24, 3)
    assert said == ["batch of 24 in 3 parts (auto): 8 images at a time fit"]
    assert chosen(KnownMeter(free_for(99)), "batch_size=24", accumulate="auto")[0].accumulate == 1
    coprime = ("two_stages=true", "first_batch=5", "batch_size=12")
    with pytest.raises(UserError, match="no number of parts of a batch of 12 fits"):
        chosen(KnownMeter(free_for(3)), *coprime, accumulate="auto")


def test_a_stage_with_its_own_batch_keeps_it_and_bounds_the_parts(endless):
    two = ("two_stages=true", "first_batch=6", "batch_size=12")
    settings, _ = chosen(KnownMeter(free_for(50)), *two)
    assert (settings.batch_size, settings.first_batch) == (48, 6)
    settings, _ = chosen(KnownMeter(free_for(3)), *two, accumulate="auto")
    assert settings.accumulate == 6  # divides 6 and 12, and two images fit


def test_without_a_meter_the_presets_batch_stays_and_a_line_says_so():
    settings, said = chosen(None)
    assert settings.batch_size == 4
    assert said == ["batch size 4: the preset's; only a CUDA device's memory is measured"]
    assert meter_of(torch.device("cpu")) is None


def test_a_cpu_without_bfloat16_trains_in_float32(monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda _: False)
    settings, said = chosen(None, precision="auto")
    assert settings.precision == "no"
    assert said == ["precision float32 (auto): cpu does not compute bfloat16 itself"]


def test_several_processes_name_a_number(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="several processes train together: measure with one"):
        chosen(KnownMeter(free_for(100)))


def test_what_a_cuda_device_is_asked(monkeypatch):
    """There is none here: only the questions are tested."""
    asked, device = [], torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: asked.append("empty"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (700, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 50)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda where: asked.append(where))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda where: 123)
    meter = meter_of(device)
    assert isinstance(meter, CudaMeter)
    assert meter.free() == 750
    assert meter.peak(lambda: asked.append("work")) == 123
    assert asked == ["empty", device, "work"]
    assert fitting.SHARE < 1
