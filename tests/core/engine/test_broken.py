"""Broken examples: passed over in the same way wherever they are read, told once, counted, and
never too many."""

import json
import os
import signal
import sys
from types import SimpleNamespace

import pytest
import torch

from t2i.benchmarks.run.caption_sets import open_data
from t2i.core.engine import resume, stored, train
from t2i.core.engine.context import RunContext
from t2i.core.engine.loader import Loader, Views
from t2i.core.engine.reporting import Silent
from t2i.core.engine.storing import Recipe, obtain
from t2i.core.errors import Interrupted, UserError
from t2i.core.interfaces.broken import Broken, SoundDataset, sound, too_many_broken
from t2i.core.interfaces.dataset import BrokenExample, Contents
from t2i.core.interfaces.visits import Visit
from t2i.core.io.tensors import load_tensors
from t2i.core.runs.configure import open_dataset, resolve_config
from t2i.core.runs.folder import Run
from t2i.core.settings.model import Augment

pytestmark = pytest.mark.usefixtures("toy")
ALONE = SimpleNamespace(
    is_main_process=True,
    num_processes=1,
    process_index=0,
    device=torch.device("cpu"),
    wait_for_everyone=lambda: None,
)


class Words(Silent):
    """Keeps what is said, and does something when the first broken example is told."""

    def __init__(self, on_broken=lambda: None):
        self.texts, self._on_broken = [], on_broken

    def say(self, text):
        self.texts.append(text)
        if text.startswith("warning: broken") and len(self.told()) == 1:
            self._on_broken()

    def told(self):
        return [text.split(": ")[2] for text in self.texts if text.startswith("warning: broken")]


@pytest.fixture
def breaks(monkeypatch):
    """`breaks(*indexes)` makes these of the ten images of `toydata`, split train, unreadable."""
    module, data = sys.modules["t2i_toy"], sys.modules["t2i_toy"].data

    def make(*indexes):
        class Breaking(data):
            def __getitem__(self, index):
                if index in indexes and self.split == "train":
                    raise BrokenExample(f"{index}.png", "torn")
                return super().__getitem__(index)

        monkeypatch.setattr(module, "data", Breaking)

    return make


def toydata(**own):
    return open_dataset(resolve_config("toy", overrides={"data": {"few_broken": 0, **own}}).data)


@pytest.mark.parametrize(
    ("index", "taken", "passed"),
    [(2, 5, ["2.png", "3.png", "4.png"]), (5, 5, []), (9, 0, ["9.png"])],
)
def test_the_next_sound_example_takes_a_broken_ones_place(breaks, index, taken, passed):
    breaks(2, 3, 4, 9)
    example, broken = sound(toydata(max_broken=0.5), index)
    assert example.key == f"train-{taken}"
    assert [error.where for error in broken] == passed


@pytest.mark.parametrize(
    ("broken", "examples", "own", "refused"),
    [
        (1, 30, {}, False),
        (5, 60, {}, False),
        (6, 60, {}, True),
        (6, 600, {}, False),
        (7, 600, {}, True),
        (3, 6, {}, False),
        (4, 6, {}, True),
        (1, 1, {}, True),
        (1, 99, {"few_broken": 0}, True),
        (9, 60, {"max_broken": 0.2}, False),
    ],
)
def test_a_share_stops_only_with_a_number_unless_most_are_broken(
    monkeypatch, broken, examples, own, refused
):
    data = toydata(**{"max_broken": 0.01, "few_broken": 5, **own})
    monkeypatch.setattr(type(data), "__len__", lambda self: examples)
    assert too_many_broken(data, broken) == refused


def test_one_failure_after_the_other_ends_the_search(breaks):
    breaks(*range(10))
    with pytest.raises(
        UserError, match=r"^data set: 4 of its 10 .* max_broken = 0\.3 allows; one is 3\.png: torn"
    ):
        sound(toydata(max_broken=0.3), 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_and_complaints_are_the_same_whatever_the_workers(breaks, workers):
    breaks(1, 5)
    views = Views(toydata(max_broken=0.5), 0, 8, Augment())
    loader = Loader(views, iter([[Visit(0, 0), Visit(0, 1)], [Visit(0, 5), Visit(0, 4)]]), workers)
    try:
        first, second = next(loader), next(loader)
    finally:
        loader.close()
    assert (first.keys, second.keys) == (("train-0", "train-2"), ("train-6", "train-4"))
    assert [[str(e) for e in batch.broken] for batch in (first, second)] == [
        ["1.png: torn"],
        ["5.png: torn"],
    ]


def settings(*more):
    return resolve_config(
        "toy", sets=["data.max_broken=0.3", "data.few_broken=0", "steps=10", *more]
    )


def weights(run):
    return load_tensors(run.model / "generator.safetensors", "x")


def test_training_tells_each_once_and_writes_them_down(tmp_path, breaks):
    breaks(2, 7)
    words = Words()
    run = train(settings("workers=1"), tmp_path / "a", reporter=words)
    assert sorted(words.told()) == ["2.png", "7.png"]
    kept = [json.loads(line) for line in run.broken_file.read_text().splitlines()]
    assert sorted(entry["file"] for entry in kept) == ["2.png", "7.png"]
    assert {entry["reason"] for entry in kept} == {"torn"}
    other = train(settings("workers=0"), tmp_path / "b", reporter=Silent())
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(run).values(), weights(other).values(), strict=True)
    )


def test_a_resumed_run_goes_on_counting_and_is_the_same_run(tmp_path, breaks):
    breaks(2, 7)
    stop = Words(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        train(settings("batch_size=1"), tmp_path / "cut", reporter=stop)
    words = Words()
    run = resume(tmp_path / "cut", reporter=words)
    assert len(stop.told()) == len(words.told()) == 1
    assert {*stop.told(), *words.told()} == {"2.png", "7.png"}
    whole = train(settings("batch_size=1"), tmp_path / "whole", reporter=Silent())
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(run).values(), weights(whole).values(), strict=True)
    )


def test_too_many_stop_the_run_and_the_error_names_the_remedies(tmp_path, breaks):
    breaks(2, 4, 7)
    with pytest.raises(UserError) as caught:
        train(
            resolve_config("toy", sets=["data.max_broken=0.25", "data.few_broken=0", "steps=8"]),
            tmp_path / "run",
            reporter=Silent(),
        )
    assert caught.value.exit_code == 2
    for part in (
        "3 of its 10",
        "max_broken = 0.25",
        ".png: torn",
        "t2i datasets check",
        "data.max_broken",
    ):
        assert part in str(caught.value)
    assert len(Run(tmp_path / "run").broken_file.read_text().splitlines()) == 3


def test_what_was_passed_over_is_told_and_written_down(tmp_path, monkeypatch):
    data = sys.modules["t2i_toy"].data
    left = Contents(("images: 10",), {"hidden file": 3})
    monkeypatch.setattr(data, "contents", lambda self: left)
    words = Words()
    run = train(settings("steps=1"), tmp_path / "run", reporter=words)
    assert words.texts.count("data: passed over: hidden file: 3") == 1
    own = {"found": ["images: 10"], "passed_over": {"hidden file": 3}}
    assert json.loads(run.data_file.read_text()) == {"train": own, "val": own}


def test_what_an_earlier_session_met_counts(breaks):
    breaks()
    broken = Broken(
        toydata(max_broken=0.1), lambda text: None, known=[BrokenExample("1.png", "torn")]
    )
    broken.add([BrokenExample("1.png", "torn")])
    assert len(broken) == 1
    with pytest.raises(UserError, match="2 of its 10"):
        broken.add([BrokenExample("2.png", "torn")])


def test_processes_count_together(breaks, monkeypatch):
    """What the other process passed over is told and counted here too."""
    breaks()
    theirs = [BrokenExample("9.png", "torn"), BrokenExample("1.png", "torn")]

    def gather(everyone, own):
        everyone[:] = [own, theirs]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    told = []
    broken = Broken(toydata(max_broken=0.2), told.append)
    own = [BrokenExample("1.png", "torn")]
    context = SimpleNamespace(accelerator=SimpleNamespace(num_processes=2), broken=broken)
    RunContext.count_broken(context, own)
    assert (len(broken), len(told)) == (2, 2)
    with pytest.raises(UserError, match="3 of its 10"):
        RunContext.count_broken(context, [BrokenExample("5.png", "torn")])


@pytest.mark.parametrize("again", [False, True])
def test_stored_features_stand_for_the_same_examples(tmp_path, monkeypatch, breaks, again):
    monkeypatch.setattr(stored, "PART", 4)
    breaks(3, 7)
    data, own = toydata(max_broken=0.5), SimpleNamespace(
        cache_views=1, seed=0, image_size=8, workers=0, augment=Augment()
    )  # fmt: skip
    views = Views(data, 0, 8, Augment())
    recipe = Recipe(own, lambda images: images, None, {})
    for _ in range(1 + again):
        store = obtain(tmp_path, data, views, recipe, ALONE, lambda text: None)
    visits = [Visit(0, index) for index in range(10)]
    read, made = store[visits], views[visits]
    assert (read.captions, read.keys) == (made.captions, made.keys)
    assert read.keys[3] == "train-4"
    assert torch.equal(read.encoded, torch.from_numpy(made.images).permute(0, 3, 1, 2) / 127.5 - 1)
    assert sorted({error.where for error in store.broken}) == ["3.png", "7.png"]


def test_a_single_reader_tells_and_counts_too(breaks):
    breaks(2, 7)
    told = []
    data = SoundDataset(toydata(max_broken=0.2), told.append)
    assert [data[index].key for index in (1, 2, 2, 7)] == [
        "train-1",
        "train-3",
        "train-3",
        "train-8",
    ]
    assert [text.split(": ")[2] for text in told] == ["2.png", "7.png"]
    assert data.captions(2) == data[3].captions  # those of what is shown
    strict = SoundDataset(toydata(max_broken=0.1), told.append)
    assert strict[2].key == "train-3"
    with pytest.raises(UserError, match="2 of its 10"):
        strict[7]


def test_benchmarks_read_by_the_same_rule(breaks, capfd):
    breaks(2)
    benchmark = SimpleNamespace(name="b", dataset="toydata", data={"max_broken": 0.3}, image_size=8)
    data = open_data(benchmark, "train", {}, None)
    assert (data[2].key, data[3].key, len(data)) == ("train-3", "train-3", 10)
    assert "2.png: torn" in capfd.readouterr().err


def test_the_grid_of_a_run_passes_over_them_too(tmp_path, monkeypatch):
    data = sys.modules["t2i_toy"].data
    monkeypatch.setattr(data, "__getitem__", _all_but_first(data.__getitem__))
    run = train(settings("steps=1"), tmp_path / "run", reporter=Silent())
    captions = json.loads((run.samples / "captions.json").read_text())["captions"]
    assert captions[:3] == ["a green image", "a blue image", "a red image"]


def _all_but_first(read):
    def item(self, index):
        if index == 0:
            raise BrokenExample("0.png", "torn")
        return read(self, index)

    return item
