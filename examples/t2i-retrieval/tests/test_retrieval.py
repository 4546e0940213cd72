"""What this plugin promises: t2i's conformance kit, and the mathematics of its own."""

from collections import Counter

import numpy as np
import pytest
import torch
from t2i_retrieval.config import HashedWordsConfig, NearestConfig, RetrievalConfig
from t2i_retrieval.encoder import HashedWords
from t2i_retrieval.memory import Memory
from t2i_retrieval.sampler import NearestSampler
from t2i_retrieval.scores import ColourHistogram, Distinct
from t2i_retrieval.training import regressed

from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.scoring import ImageBatch
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset

CAPTIONS = ["a red circle", "a blue circle", "two green squares"]


@pytest.mark.t2i("t2i-retrieval")
def test_it_keeps_every_promise(t2i_check):
    t2i_check()


@pytest.fixture
def remembering():
    """A memory of one grey level for each caption, and their features."""
    text = HashedWords(HashedWordsConfig()).encode(CAPTIONS)
    memory = Memory(RetrievalConfig(capacity=4, image_size=8), TextShape(512, 512))
    levels = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    memory.remember(levels, text.sentence)
    return memory, text


def test_the_nearest_image_is_that_of_the_caption(remembering):
    memory, text = remembering
    noise = PromptNoise(0, ((0, 0), (1, 0), (2, 0)))
    images = NearestSampler(NearestConfig(nearest=1)).sample(
        memory, Request(text=text, noise=noise)
    )
    assert torch.allclose(images[:, 0, 0, 0], torch.tensor([-1.0, 0.0, 1.0]), atol=0.01)


def test_a_full_memory_forgets_the_oldest(remembering):
    memory, text = remembering
    memory.remember(torch.full((2, 3, 8, 8), 0.5), text.sentence[:2])
    assert memory.count == 4
    assert int(memory.seen) == 5
    first = [round(float(x)) for x in memory.images[:, 0, 0, 0]]
    assert first == [191, 128, 255, 191]  # the fifth took the first one's place


def test_images_are_drawn_by_their_distances():
    """At squared distances 0 and ln 3 and temperature 1, three of four samples are the first."""
    memory = Memory(RetrievalConfig(capacity=2, image_size=8, key=1), TextShape(1, 1))
    torch.nn.init.ones_(memory.metric.weight)
    memory.remember(
        torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8),
        torch.tensor([[0.0], [np.log(3) ** 0.5]]),
    )
    n = 2000
    text = TextFeatures.of(sentence=torch.zeros(n, 1))
    noise = PromptNoise(0, tuple((i, 0) for i in range(n)))
    images = NearestSampler(NearestConfig(temperature=1.0)).sample(
        memory, Request(text=text, noise=noise)
    )
    assert Counter(images[:, 0, 0, 0].tolist())[-1.0] / n == pytest.approx(0.75, abs=0.03)


def test_the_regression_leaves_each_one_out():
    keys, values = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [10.0], [100.0]])
    near, far = np.exp(-1), np.exp(-4)
    expected = [
        (near * 10 + far * 100) / (near + far),
        (1 + 100) / 2,
        (far * 1 + near * 10) / (near + far),
    ]
    assert regressed(keys, values)[:, 0].tolist() == pytest.approx(expected, rel=1e-5)


def test_words_are_hashed_the_same_everywhere_and_order_matters():
    encoder = HashedWords(HashedWordsConfig(width=64))
    a, b, c = encoder.encode(["red on blue", "blue on red", "red on blue"]).sentence
    assert torch.equal(a, c)
    assert not torch.equal(a, b)
    assert float(a.norm()) == pytest.approx(1)
    assert encoder.encode(["red"]).sentence.nonzero().tolist() == [[0, 6]]


def test_stripes_are_what_their_captions_say():
    config = registry().datasets.choose("stripes", {"seed": 3}, "data set")
    data = open_dataset(config, "val")
    assert any((data.variant(index, 1).image != data[index].image).any() for index in range(3))
    for index in range(20):
        example = data[index]
        rows, columns = (len(np.unique(example.image, axis=axis)) for axis in (0, 1))
        words = example.captions[0].split()
        assert {"horizontal": rows > 1, "vertical": columns > 1, "diagonal": True}[words[1]]
        assert len(np.unique(example.image.reshape(-1, 3), axis=0)) == 2


def test_histogram_and_distinct():
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    vector = ColourHistogram()(torch.from_numpy(red).permute(0, 3, 1, 2))
    assert vector[0].nonzero().tolist() == [[3 * 16]]
    metric = Distinct()
    metric.update(ImageBatch(np.concatenate([red, red, 0 * red, red]), ("",) * 4, (0, 1, 2, 3)))
    assert metric.compute() == {"distinct": 50.0}
