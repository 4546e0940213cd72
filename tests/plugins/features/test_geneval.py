"""GenEval's rules on hand-made detections, its file of prompts, and its scores."""

import json

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import ImageBatch, proportion_interval
from t2i.plugins.features.geneval.config import GenevalConfig, GenevalFeaturesConfig
from t2i.plugins.features.geneval.features import ObjectChecks
from t2i.plugins.features.geneval.metric import Geneval
from t2i.plugins.features.geneval.prompts import TAGS, Objects, Prompt, read_prompts
from t2i.plugins.features.geneval.rules import Found, counted, overlap, positions, shows


def found(name, score=0.95, box=(0, 0, 10, 10)):
    return Found(name, score, box, torch.zeros(1, 1, dtype=torch.bool))


def right(prompt, *objects, colours=(), max_overlap=1.0):
    """Check objects, whose colours are given by class."""
    known = dict(colours)
    return shows(
        prompt, counted(objects, prompt.tag, max_overlap),
        lambda some, name: [known[name]] * len(some),
    )  # fmt: skip


def test_a_single_object_must_be_surer_than_the_threshold():
    prompt = Prompt("single_object", (Objects("cow", 1),))
    assert right(prompt, found("cow", 0.31))
    assert right(prompt, found("cow"), found("cow"), found("dog"))  # more may be there
    assert not right(prompt, found("cow", 0.3))
    assert not right(prompt, found("horse"))
    assert not right(prompt)


def test_both_of_two_objects_must_be_there():
    prompt = Prompt("two_object", (Objects("bench", 1), Objects("kite", 1)))
    assert right(prompt, found("kite"), found("bench", 0.4))
    assert not right(prompt, found("bench"), found("bench"))


TWO_CLOCKS = Prompt("counting", (Objects("clock", 2),), (Objects("clock", 3),))


def test_counting_needs_the_exact_number_of_very_sure_objects():
    two = [found("clock", 0.91), found("clock", 0.99)]
    assert right(TWO_CLOCKS, *two)
    assert right(TWO_CLOCKS, *two, found("clock", 0.9))  # not sure enough to be one too many
    assert not right(TWO_CLOCKS, *two, found("clock", 0.92))
    assert not right(TWO_CLOCKS, two[0])


def test_only_sixteen_objects_of_a_class_count():
    many = [found("clock", 0.9 + i / 1000) for i in range(20)]
    kept = counted(many, "single_object")["clock"]
    assert [one.score for one in kept] == [one.score for one in many[:3:-1]]


def test_an_excluded_class_makes_an_image_wrong():
    prompt = Prompt("single_object", (Objects("cow", 1),), (Objects("dog", 1),))
    assert right(prompt, found("cow"), found("cat"))
    assert not right(prompt, found("cow"), found("dog", 0.31))


def test_duplicates_are_removed_if_the_setting_says_so():
    pair = [found("clock", 0.99, (0, 0, 9, 9)), found("clock", 0.95, (1, 0, 10, 9))]
    apart = found("clock", 0.93, (100, 0, 109, 9))
    assert overlap(pair[0].box, pair[1].box) == 90 / 110  # edges count as pixels
    assert overlap(pair[0].box, apart.box) == 0
    assert not right(TWO_CLOCKS, *pair, apart)
    assert right(TWO_CLOCKS, *pair, apart, max_overlap=0.5)
    assert right(TWO_CLOCKS, *pair, max_overlap=0.82)
    assert not right(TWO_CLOCKS, *pair, max_overlap=90 / 110)
    other = counted([pair[0], found("cup", 0.95, (1, 0, 10, 9))], "counting", 0.5)
    assert set(other) == {"clock", "cup"}  # other classes may overlap


def test_a_chain_of_overlaps_keeps_both_ends():
    """An object that was removed removes no other."""
    chain = [found("cup", 0.99 - x / 100, (6 * x, 0, 6 * x + 9, 9)) for x in range(3)]
    kept = counted(chain, "single_object", 0.2)["cup"]
    assert [one.box[0] for one in kept] == [0, 12]


def test_colours_are_those_of_the_surest_objects():
    prompt = Prompt("colors", (Objects("car", 1, "pink"),))
    assert right(prompt, found("car"), colours={"car": "pink"})
    assert not right(prompt, found("car"), colours={"car": "red"})
    sure, unsure = found("car", 0.9), found("car", 0.5)

    def named(some, name):
        return ["pink" if one is sure else "blue" for one in some]

    assert shows(prompt, counted([unsure, sure], "colors"), named)
    both = Prompt("colors", (Objects("car", 2, "pink"),))
    assert not shows(both, counted([unsure, sure], "colors"), named)


def test_each_object_must_have_its_own_colour():
    prompt = Prompt("color_attr", (Objects("bus", 1, "green"), Objects("oven", 1, "red")))
    pair = [found("bus"), found("oven")]
    assert right(prompt, *pair, colours={"bus": "green", "oven": "red"})
    assert not right(prompt, *pair, colours={"bus": "red", "oven": "green"})


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-40, 0, -20, 20), {"left of"}), ((40, 0, 60, 20), {"right of"}),
        ((0, -40, 20, -20), {"above"}), ((0, 40, 20, 60), {"below"}),
        ((40, 40, 60, 60), {"right of", "below"}),
        ((0, 0, 20, 20), set()),
        ((4, 0, 24, 20), set()),  # the margin exactly: a tenth of 20 + 20
        ((8, 0, 28, 20), set()),  # half of the offset is left exactly
        ((9, 0, 29, 20), {"right of"}),
    ],
)  # fmt: skip
def test_positions_of_boxes(box, expected):
    assert positions(box, (0, 0, 20, 20)) == expected


def test_an_object_must_be_where_the_prompt_says():
    prompt = Prompt("position", (Objects("dog", 1), Objects("cat", 1, position=("left of", 0))))
    dog = found("dog", box=(50, 0, 60, 10))
    assert right(prompt, dog, found("cat"))
    assert not right(prompt, dog, found("cat", box=(90, 0, 100, 10)))
    assert not right(prompt, dog, found("cat", 0.9), found("cat", 0.95, (90, 0, 100, 10)))
    assert not right(prompt, found("cat"))


LINE = {"tag": "position", "prompt": "a  dog left of a cat", "include": [
    {"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]},
]}  # fmt: skip


def written(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_published_layout_is_read(tmp_path):
    counting = {"tag": "counting", "prompt": "two cows", "include": [{"class": "cow", "count": 2}],
                "exclude": [{"class": "cow", "count": 3}]}  # fmt: skip
    colour = {"tag": "colors", "prompt": "a red cow",
              "include": [{"class": "cow", "count": 1, "color": "red"}]}  # fmt: skip
    prompts = read_prompts(written(tmp_path / "p.jsonl", LINE, counting, colour))
    assert prompts == {
        "a dog left of a cat": Prompt(
            "position", (Objects("cat", 1), Objects("dog", 1, position=("left of", 0)))
        ),
        "two cows": Prompt("counting", (Objects("cow", 2),), (Objects("cow", 3),)),
        "a red cow": Prompt("colors", (Objects("cow", 1, "red"),)),
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tag": "size"}, "'size' is unknown"),
        ({"include": [{"class": "unicorn", "count": 1}]}, "'unicorn' is unknown"),
        ({"include": [{"class": "cow", "count": 1, "color": "grey"}]}, "'grey' is unknown"),
        ({"include": [{"class": "cow", "count": 0}]}, "count is 0"),
        ({"include": [{"class": "cow", "count": 1, "position": ["above", 0]}]}, "refers to 0"),
        ({"include": []}, "include is empty"),
        ({"include": None}, "not iterable"),
    ],
)
def test_a_broken_line_names_its_place(change, reason, tmp_path):
    with pytest.raises(UserError, match=f"line 1: .*{reason}"):
        read_prompts(written(tmp_path / "p.jsonl", {**LINE, **change}))


def scored(marks, groups=None):
    """Score images, each (tag, right)."""
    features = torch.zeros(len(marks), len(TAGS))
    for row, (tag, shown) in enumerate(marks):
        features[row, TAGS.index(tag)] = 1 if shown else -1
    metric = Geneval(GenevalConfig())
    for part in (slice(0, 3), slice(3, None)):
        metric.update(
            ImageBatch(None, ("",) * len(marks[part]), tuple(groups or range(len(marks)))[part],
                       {"geneval": features[part]})
        )  # fmt: skip
    return metric.compute(), metric.intervals(), metric


def test_the_score_is_the_mean_of_the_tags_not_of_the_images():
    marks = [*((tag, True) for tag in TAGS[:3]), *((tag, False) for tag in TAGS[3:]),
             *[("counting", False)] * 3]  # fmt: skip
    scores, intervals, _ = scored(marks)
    assert scores["counting"] == 25
    assert scores["geneval"] == pytest.approx((100 + 100 + 25) / 6)
    assert intervals["counting"] == proportion_interval(1, 4)
    low, high = intervals["geneval"]
    assert 0 < low < scores["geneval"] < high < 100


def test_the_interval_of_the_score_is_the_binomial_one_where_there_are_many_images():
    """The variance of a mean of independent shares: the sum of theirs, divided by 36."""
    marks = [(tag, i % 4 == 0) for tag in TAGS for i in range(1000)]
    scores, intervals, _ = scored(marks)
    half = 100 * 1.96 * (6 * 0.25 * 0.75 / 1000 / 36) ** 0.5
    low, high = intervals["geneval"]
    assert scores["geneval"] == 25
    assert (high - low) / 2 == pytest.approx(half, rel=0.02)


def test_images_of_one_prompt_are_not_counted_as_independent():
    marks = [("colors", i % 4 < 2) for i in range(8)]
    _, intervals, _ = scored(marks, groups=[0, 0, 0, 0, 1, 1, 1, 1])
    assert intervals == {"colors": proportion_interval(1.0, 2)}


def test_without_images_of_a_tag_there_is_no_score_over_all():
    scores, _, metric = scored([("colors", True), ("position", False)])
    assert scores == {"colors": 100, "position": 0}
    assert "single_object, two_object, counting, color_attr" in metric.warnings(scores, None)[0]


def test_other_features_are_refused():
    metric = Geneval(GenevalConfig(features="clip"))
    with pytest.raises(UserError, match="'clip' are 512 numbers"):
        metric.update(ImageBatch(None, ("",), (0,), {"clip": torch.zeros(1, 512)}))


class Cows(torch.nn.Module):
    """A detector that finds as many cows as the first value of an image."""

    def forward(self, images):
        return [[found("cow")] * int(image[0, 0, 0]) for image in images]


class Red(torch.nn.Module):
    def names(self, image, some, name):
        return ["red"] * len(some)


def test_each_image_is_checked_by_its_own_prompt():
    prompts = {
        "a cow": Prompt("single_object", (Objects("cow", 1),)),
        "two cows": Prompt("counting", (Objects("cow", 2),), (Objects("cow", 3),)),
    }
    judge = ObjectChecks(GenevalFeaturesConfig(), prompts, Cows(), Red())
    counts = torch.tensor([0, 3, 1, 2, 3, 2]).byte()
    images = counts[:, None, None, None].expand(6, 3, 4, 4)
    captions = ["a cow", " a  cow", "two cows", "two cows", "two cows", "a cow"]
    marks = judge.of_pairs(images, captions)
    assert marks[:, TAGS.index("single_object")].tolist() == [-1, 1, 0, 0, 0, 1]
    assert marks[:, TAGS.index("counting")].tolist() == [0, 0, -1, 1, -1, 0]
    assert marks[:, 3:].count_nonzero() == marks[:, 1].count_nonzero() == 0
    with pytest.raises(UserError, match="'a horse' is none of GenEval's prompts"):
        judge.of_pairs(images[:1], ["a horse"])
