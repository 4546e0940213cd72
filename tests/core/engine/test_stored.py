"""Stored features: the same batches as without the store, computed once, whole or not at all, anew
when damaged."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from t2i.core.engine import resume, stored, train
from t2i.core.engine.loader import Views
from t2i.core.engine.reporting import Silent
from t2i.core.engine.storing import Recipe, obtain
from t2i.core.errors import Interrupted, UserError
from t2i.core.interfaces.text import TextFeatures
from t2i.core.interfaces.visits import Visit
from t2i.core.io.tensors import load_tensors
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run
from t2i.core.settings.model import Augment

ALONE = SimpleNamespace(
    is_main_process=True,
    num_processes=1,
    process_index=0,
    device=torch.device("cpu"),
    wait_for_everyone=lambda: None,
)


class Captioned:
    """Seven images of noise; image i has i + 1 captions of growing length."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 256, (10, 10, 3), np.uint8)
        captions = tuple(f"caption{' long' * n} of {index}" for n in range(index + 1))
        return SimpleNamespace(image=image, captions=captions, key=f"k{index}", extras={})

    def fingerprint(self):
        return "seven"

    version = fingerprint


def encode_text(captions):
    """Words: (number of letters, position) of each word; one extra."""
    lengths = [[len(word) for word in caption.split()] for caption in captions]
    longest = max(map(len, lengths))
    words = torch.tensor(
        [[[n, i] for i, n in enumerate(row)] + [[0, 0]] * (longest - len(row)) for row in lengths]
    )
    mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in lengths])
    extra = torch.tensor([[float(len(caption))] for caption in captions])
    return TextFeatures(extra + 0.5, words.float(), mask, tuple(captions), {"letters": extra})


def settings(**over):
    base = {
        "cache_views": 2,
        "seed": 3,
        "image_size": 8,
        "workers": 0,
        "augment": Augment(scale=1.25, flip=True),
    }
    return SimpleNamespace(**{**base, **over})


def recipe(text=encode_text, **over):
    return Recipe(settings(**over), lambda images: 2 * images.flip(1), text, {"net": torch.ones(3)})


def views(over=None):
    chosen = over or settings()
    return Views(Captioned(), chosen.seed, chosen.image_size, chosen.augment)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(stored, "PART", 3)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.usefixtures("small_parts")
def test_a_visit_reads_what_it_would_have_computed(tmp_path, workers):
    store = obtain(
        tmp_path, Captioned(), views(), recipe(workers=workers), ALONE, lambda text: None
    )
    for epoch in (0, 1):  # as many epochs as views: exactly the images of those epochs
        visits = [Visit(epoch, index) for index in (6, 0, 3, 2)]
        read, made = store[visits], views()[visits]
        assert (read.captions, read.keys) == (made.captions, made.keys)
        images = torch.from_numpy(made.images).permute(0, 3, 1, 2).float() / 127.5 - 1
        assert torch.equal(read.encoded, 2 * images.flip(1))
        for name in ("sentence", "words", "mask"):
            assert torch.equal(getattr(read.text, name), getattr(encode_text(made.captions), name))
        assert torch.equal(
            read.text.extras["letters"], encode_text(made.captions).extras["letters"]
        )
        assert read.text.captions == made.captions
        assert read.images.shape == (4, 0, 0, 3)
    again = store[[Visit(2, 5)]]
    assert torch.equal(
        again.encoded, store[[Visit(0, 5)]].encoded
    )  # the third epoch sees the first view again


def test_without_text_where_the_stage_trains_the_encoder(tmp_path):
    store = obtain(tmp_path, Captioned(), views(), recipe(text=None), ALONE, lambda text: None)
    assert store[[Visit(0, 1)]].text is None
    assert store[[Visit(0, 1)]].captions == views()[[Visit(0, 1)]].captions


def test_the_key_tells_apart_what_differs():
    base = recipe().key(Captioned())
    assert base == recipe().key(Captioned())
    changed = Recipe(settings(), None, encode_text, {"net": torch.tensor([1.0, 1.0, 1.0001])})
    others = [
        recipe(seed=4),
        recipe(cache_views=1),
        recipe(text=None),
        recipe(augment=Augment()),
        changed,
    ]
    assert len({base, *(other.key(Captioned()) for other in others)}) == 6


@pytest.mark.usefixtures("small_parts")
def test_filling_goes_on_where_it_stopped_and_a_complete_store_is_only_read(tmp_path):
    calls = []

    def counted(images):
        calls.append(len(images))
        return images

    def stop(text):
        if text.startswith("stored 6"):
            raise KeyboardInterrupt

    making = Recipe(settings(), counted, None, {})
    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path, Captioned(), views(), making, ALONE, stop)
    assert calls == [6, 6]
    litter = tmp_path / making.key(Captioned()) / "part-00002.999.tmp"
    litter.write_bytes(b"half")
    obtain(tmp_path, Captioned(), views(), making, ALONE, lambda text: None)
    assert calls == [6, 6, 2]
    assert not litter.exists()
    obtain(tmp_path, Captioned(), views(), making, ALONE, lambda text: None)
    assert calls == [6, 6, 2]


def test_a_damaged_store_is_made_anew_and_said_so(tmp_path):
    obtain(tmp_path, Captioned(), views(), recipe(), ALONE, lambda text: None)
    part = tmp_path / recipe().key(Captioned()) / "part-00000.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    said = []
    obtain(tmp_path, Captioned(), views(), recipe(), ALONE, said.append)
    assert said[0].startswith("warning")
    assert "part-00000.safetensors" in said[0]
    assert part.read_bytes() != bytes(data)


def test_two_runs_do_not_fill_one_store_at_once(tmp_path):
    def meanwhile(text):
        with pytest.raises(UserError, match="being filled by another run"):
            obtain(tmp_path, Captioned(), views(), recipe(), ALONE, lambda text: None)

    obtain(tmp_path, Captioned(), views(), recipe(), ALONE, meanwhile)


# --- within a run ---------------------------------------------------------------------------------

SMALL = (
    "data.endless=false", "data.train_length=40", "steps=14", "batch_size=8",
    "autoencoder.batch_size=4", "keep=20",
    "autoencoder.channels=[16]", "autoencoder.groups=4", "unet.channels=[16,16]", "unet.groups=4",
    "unet.head_width=8",
    "checkpoint_every=5", "sample_every=100", "threads=1", "sampler.steps=2",
)  # fmt: skip


def begin(out, *sets):
    return train(resolve_config("ldm", sets=(*SMALL, *sets)), out, reporter=Silent())


def weights(run):
    return load_tensors(run.model / "generator.safetensors", "x")


def test_training_reads_the_store_and_gives_the_same_network(tmp_path):
    """Latents that were computed 40 at a time differ from those of batches of 8 by rounding
    only."""
    plain, cached = begin(tmp_path / "plain"), begin(tmp_path / "cached", "cache_views=1")
    assert [path.name for path in (cached.path / "features").glob("*/manifest.json")] == [
        "manifest.json"
    ]
    a, b = weights(plain), weights(cached)
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-4
    logs = [
        [json.loads(line)["losses"] for line in run.metrics_file.read_text().splitlines()]
        for run in (plain, cached)
    ]
    assert logs[0][-1]["diffusion"] == pytest.approx(logs[1][-1]["diffusion"], rel=1e-4)


@pytest.mark.slow
def test_a_resumed_run_reads_the_same_store(tmp_path):
    whole = begin(tmp_path / "whole", "cache_views=2", f"cache_dir={tmp_path / 'shared'}")
    kept = next((tmp_path / "shared").glob("*/part-00000.safetensors"))
    written = kept.stat().st_mtime_ns

    class Stop(Silent):
        def status(self, status):
            if status.step == 10:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGINT)

    config = resolve_config(
        "ldm", sets=(*SMALL, "cache_views=2", f"cache_dir={tmp_path / 'shared'}", "log_every=5")
    )
    with pytest.raises(Interrupted):
        train(config, tmp_path / "cut", reporter=Stop())
    resume(tmp_path / "cut", reporter=Silent())
    ours, theirs = weights(Run(tmp_path / "cut")), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert kept.stat().st_mtime_ns == written


def test_an_endless_data_set_has_nothing_to_store(tmp_path):
    with pytest.raises(UserError, match="endless"):
        train(resolve_config("ldm", sets=("cache_views=1",)), tmp_path / "run", reporter=Silent())
