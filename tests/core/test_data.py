"""The order of visits: every example once an epoch, resumable at any step, endless sets without repetition."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i.core.data import visits


@given(length=st.integers(1, 30), seed=st.integers(0, 99), start=st.integers(0, 100))
def test_resuming_anywhere_gives_the_same_visits(length, seed, start):
    whole = list(islice(visits(length, False, seed, 0), start + 40))
    assert list(islice(visits(length, False, seed, start), 40)) == whole[start:]


@given(length=st.integers(2, 30), seed=st.integers(0, 99))
def test_each_epoch_visits_everything_once(length, seed):
    both = list(islice(visits(length, False, seed, 0), 2 * length))
    assert sorted(v.index for v in both[:length]) == sorted(v.index for v in both[length:]) == list(range(length))
    assert {v.epoch for v in both[length:]} == {1}


def test_epochs_and_seeds_differ():
    def order(seed, epoch):
        return [v.index for v in islice(visits(100, False, seed, 100 * epoch), 100)]

    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_an_endless_set_never_repeats():
    assert [v.index for v in islice(visits(10, True, 3, 7), 25)] == list(range(7, 32))


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="at least one example"):
        next(visits(0, False, 0, 0))
