"""The order of visits: every example once an epoch, resumable at any step, endless sets without
repetition."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i.core.interfaces.dataset import Dataset
from t2i.core.interfaces.visits import visits


class Numbers(Dataset):
    """A set of a length, in the default order."""

    def __init__(self, length, endless=False):
        self.length, self.endless = length, endless

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        raise NotImplementedError

    def fingerprint(self):
        return ""


class Backwards(Numbers):
    def order(self, seed, epoch, start=0):
        return range(self.length - 1 - start, -1, -1)


@given(length=st.integers(1, 30), seed=st.integers(0, 99), start=st.integers(0, 100))
def test_resuming_anywhere_gives_the_same_visits(length, seed, start):
    whole = list(islice(visits(Numbers(length), seed, 0), start + 40))
    assert list(islice(visits(Numbers(length), seed, start), 40)) == whole[start:]


@given(length=st.integers(2, 30), seed=st.integers(0, 99))
def test_each_epoch_visits_everything_once(length, seed):
    both = list(islice(visits(Numbers(length), seed, 0), 2 * length))
    assert (
        sorted(v.index for v in both[:length])
        == sorted(v.index for v in both[length:])
        == list(range(length))
    )
    assert {v.epoch for v in both[length:]} == {1}


def test_epochs_and_seeds_differ():
    def order(seed, epoch):
        return [v.index for v in islice(visits(Numbers(100), seed, 100 * epoch), 100)]

    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_an_endless_set_never_repeats():
    assert [v.index for v in islice(visits(Numbers(10, True), 3, 7), 25)] == list(range(7, 32))


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="at least one example"):
        next(visits(Numbers(0), 0, 0))


def test_a_data_set_may_have_an_order_of_its_own():
    seen = [(v.epoch, v.index) for v in islice(visits(Backwards(3), 0, 4), 5)]
    assert seen == [(1, 1), (1, 0), (2, 2), (2, 1), (2, 0)]
