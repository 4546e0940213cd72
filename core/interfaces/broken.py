"""Examples that cannot be read: they are counted, reported and left out, up to a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from t2i.core.errors import DataAway, UserError, is_away
from t2i.core.interfaces.dataset import BrokenExample, Contents, Dataset, Example, Written

AWAY_IN_A_ROW = 3
"""So many files in a row that cannot be reached mean that the data set is away, not that they are
broken."""


def sound(
    dataset: Dataset | Sequence[Example], index: int, *, patient: bool = False
) -> tuple[Example, tuple[BrokenExample, ...]]:
    """Read an example, or the next one that is not broken.

    After the last example the search continues with the first. The result depends on the data set
    and the index alone.

    Args:
        dataset: A data set, or a list of examples, none of which is broken.
        index: Index of the example.
        patient: Whether the caller can wait until a data set that is away is back.

    Returns:
        The example, and the broken examples that were skipped before it.

    Raises:
        UserError: Too many examples in a row are broken (`too_many_broken`).
        DataAway: `patient` is set, and the first files in a row cannot be reached.
    """
    passed: list[BrokenExample] = []
    while True:
        try:
            return _example(dataset, index), tuple(passed)
        except BrokenExample as error:
            assert isinstance(dataset, Dataset)  # examples in a list are never broken
            passed.append(error)
            if patient and all(broken.away for broken in passed):
                if len(passed) >= min(AWAY_IN_A_ROW, len(dataset)):
                    raise DataAway(str(passed[0])) from None
            else:
                refuse_if_too_many(dataset, passed)
            index = index + 1 if dataset.endless else (index + 1) % len(dataset)


def _example(dataset: Dataset | Sequence[Example], index: int) -> Example:
    """Read an example. A file that the system cannot reach is a broken one, whoever reads it."""
    try:
        return dataset[index]
    except OSError as error:
        if not is_away(error):
            raise
        where = str(error.filename or f"example {index}")
        raise BrokenExample(where, error.strerror or str(error), away=True) from None


def too_many_broken(dataset: Dataset, broken: int) -> bool:
    """Tell whether so many examples are broken that the data set is not fit for use.

    Args:
        dataset: The data set.
        broken: Number of its broken examples.

    Returns:
        True if they are more than the share `max_broken` of the data set, and either more than
        `few_broken` or more than half of it.
    """
    examples = len(dataset)
    return broken > dataset.max_broken * examples and (
        broken > dataset.few_broken or 2 * broken > examples
    )


def refuse_if_too_many(dataset: Dataset, broken: Sequence[BrokenExample]) -> None:
    """Raise an error if too many examples are broken (`too_many_broken`).

    Args:
        dataset: The data set.
        broken: Its broken examples that were found so far.

    Raises:
        UserError: They are too many.
    """
    if too_many_broken(dataset, len(broken)):
        raise UserError(
            f"data set: {len(broken)} of its {len(dataset)} examples are broken so far, more than "
            f"max_broken = {dataset.max_broken:g} allows; one is {broken[-1]}; "
            "'t2i datasets check' lists all: mend them, or allow more: --set data.max_broken=SHARE"
        )


class Broken:
    """The broken examples of a data set that were found so far. Each one is reported once.

    Args:
        dataset: The data set.
        say: Function that prints a warning.
        note: Function that records a broken example. None: they are not recorded.
        known: Broken examples that an earlier session found.
    """

    def __init__(
        self,
        dataset: Dataset,
        say: Callable[[str], None],
        note: Callable[[BrokenExample], None] | None = None,
        known: Iterable[BrokenExample] = (),
    ) -> None:
        self._dataset, self._say, self._note = dataset, say, note
        self._met = {error.where: error for error in known}

    def __len__(self) -> int:
        return len(self._met)

    def add(self, broken: Iterable[BrokenExample]) -> None:
        """Report, record and count broken examples that are new.

        Args:
            broken: Broken examples; those that are known already are ignored.

        Raises:
            UserError: All that were found are too many (`too_many_broken`).
        """
        fresh = {error.where: error for error in broken if error.where not in self._met}
        if not fresh:
            return
        for error in fresh.values():
            self._say(f"warning: broken, another example takes its place: {error}")
            if self._note:
                self._note(error)
        self._met |= fresh
        refuse_if_too_many(self._dataset, list(self._met.values()))


class SoundDataset(Dataset):
    """A data set without its broken examples, for reading in one process.

    Broken examples are reported and counted, and the next example is returned instead.

    Args:
        dataset: The data set to read.
        say: Function that prints a warning.
    """

    def __init__(self, dataset: Dataset, say: Callable[[str], None]) -> None:
        self._dataset, self._broken = dataset, Broken(dataset, say)
        self.image_size, self.endless = dataset.image_size, dataset.endless
        self.max_broken, self.few_broken = dataset.max_broken, dataset.few_broken

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Example:
        example, broken = sound(self._dataset, index)
        self._broken.add(broken)
        return example

    def fingerprint(self) -> str:
        return self._dataset.fingerprint()

    def written(self) -> Written | None:
        return self._dataset.written()

    def captions(self, index: int) -> tuple[str, ...]:
        try:
            return self._dataset.captions(index)
        except BrokenExample:
            return self[index].captions

    def order(self, seed: int, epoch: int, start: int = 0) -> Iterable[int]:
        return self._dataset.order(seed, epoch, start)

    def variant(self, index: int, number: int) -> Example | None:
        try:
            return self._dataset.variant(index, number)
        except BrokenExample as error:
            self._broken.add([error])
            return None

    def vocabulary(self) -> Iterable[str]:
        return self._dataset.vocabulary()

    def contents(self) -> Contents:
        return self._dataset.contents()
