"""A subject's images and those of its class: how often each is visited."""

import pytest

from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset


@pytest.mark.parametrize(
    ("weight", "count", "subject", "others"), [(1, 6, 6, 6), (0.5, 6, 12, 6), (3, 2, 3, 9)]
)
def test_subject_and_class_are_visited_in_the_ratio_of_their_losses(
    photo, tmp_path, weight, count, subject, others
):
    for number in range(6):
        if number < 3:
            photo(tmp_path / "dog" / f"{number}.png", number)
        photo(tmp_path / "dog-class" / f"{number}.png", number)
    settings = {
        "dir": str(tmp_path / "dog"), "image_size": 8, "prompt": "sks dog", "class_prompt": "dog",
        "class_images": count, "prior_weight": weight,
    }  # fmt: skip
    data = open_dataset(registry().datasets.choose("subject", settings, "data set"), "train")
    captions = [data.captions(i) for i in range(len(data))]
    assert captions == [("sks dog",)] * subject + [("dog",)] * others
    assert len({data[i].key for i in range(len(data))}) == len(data)
