"""What tests of data sets share: small image files, and the conformance kit for sets that live in
folders."""

import numpy as np
import pytest
from PIL import Image

from t2i.core.kit.conformance import datasets as checks


@pytest.fixture
def photo():
    """`photo(path, number, size=(24, 16))` writes an image of smooth noise, another one for each
    number."""

    def write(path, number, size=(24, 16), mode="RGB"):
        coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
        return path

    return write


@pytest.fixture
def keeps_its_promises():
    """`keeps_its_promises(name, folder)` runs the conformance kit's checks on a data set in a
    folder."""

    def check(name, folder):
        subject = checks.DataPart("datasets", name, folder)
        for one in (checks.examples, checks.repeats, checks.travels):
            one(subject)

    return check
