"""The embedded data set: the grammar and its inverse, the splits, and the images."""

import hashlib
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from t2i.core.errors import UserError
from t2i.plugins.datasets.shapes import grammar, render
from t2i.plugins.datasets.shapes.config import ShapesConfig
from t2i.plugins.datasets.shapes.dataset import SPLITS, Shapes, build
from t2i.plugins.datasets.shapes.draws import Draws
from t2i.plugins.datasets.shapes.grammar import (
    FULL,
    SIMPLE,
    Grammar,
    Obj,
    Scene,
    captions_of,
    draw_scene,
    parse,
)

kinds = st.sampled_from(grammar.KINDS)
indexes = st.integers(0, 2**40)


def scene_of(index: int, kind: str, of: Grammar = FULL) -> tuple[Scene, Draws]:
    draws = Draws(7, 3, index)
    return draw_scene(draws, of, kind), draws


def digest(split: str, indexes: range) -> str:
    found = hashlib.sha256()
    data = Shapes(ShapesConfig(), split)
    for index in indexes:
        example = data[index]
        found.update(example.image.tobytes() + repr((example.captions, example.key)).encode())
    return found.hexdigest()


# --- captions -------------------------------------------------------------------------------------


@given(index=indexes, kind=kinds, partial=st.sampled_from([0.0, 1.0]))
@settings(max_examples=300, deadline=None)
def test_a_caption_is_parsed_to_what_the_scene_shows(index: int, kind: str, partial: float) -> None:
    scene, draws = scene_of(index, kind)
    for caption in captions_of(scene, draws, 8, partial):
        claims = parse(caption)
        assert claims is not None, caption
        assert claims.kind == scene.kind
        assert len(claims.objects) == len(scene.objects)
        for claimed, shown in zip(claims.objects, scene.objects, strict=True):
            assert (claimed.shape, claimed.colour) == (shown.shape, shown.colour)
            assert claimed.size in (None, shown.size)
            assert claimed.position in (None, shown.position)
        assert claims.relation in (None, scene.relation)
        assert claims.background == scene.background or (
            claims.background is None and scene.background == "black"
        )


@given(index=indexes, kind=kinds)
@settings(max_examples=100, deadline=None)
def test_a_full_caption_leaves_nothing_out(index: int, kind: str) -> None:
    scene, draws = scene_of(index, kind)
    for caption in captions_of(scene, draws, 8):
        claims = parse(caption)
        assert claims is not None
        assert all(obj.size for obj in claims.objects)
        assert kind == "count" or claims.relation or all(obj.position for obj in claims.objects)


def test_every_phrasing_is_read_as_itself() -> None:
    scenes = [draw_scene(Draws(1, 3, n), FULL, kind) for n in range(60) for kind in grammar.KINDS]
    for phrasing in grammar.PHRASINGS:
        fitting = [
            s for s in scenes if s.kind == phrasing.kind and (s.relation or not phrasing.relates)
        ]
        for number, scene in enumerate(fitting):
            claims = parse(grammar.write(phrasing, scene, Draws(2, 3, number)))
            assert claims is not None
            assert claims.kind == phrasing.kind
            assert (claims.relation is not None) == phrasing.relates
            if phrasing.full and phrasing.kind == "one":
                assert claims.objects == scene.objects


def test_some_captions_by_hand() -> None:
    star = Obj("star", "red", "large", "top left")
    assert parse("A big red star in the top left corner.") == grammar.Claims("one", (star,))
    assert parse("top left: a large red star on a white background") == grammar.Claims(
        "one", (star,), None, "white"
    )
    assert parse("an orange circle") == grammar.Claims("one", (Obj("circle", "orange"),))
    assert parse("three small blue circles") == grammar.Claims(
        "count", (Obj("circle", "blue", "small"),) * 3
    )
    pair = (Obj("circle", "red", "small"), Obj("square", "pink", "large"))
    assert parse("a little red circle is to the left of a big pink square") == grammar.Claims(
        "two", pair, "left of"
    )


@given(st.text(max_size=80))
def test_any_text_is_parsed_without_a_crash(text: str) -> None:
    assert parse(text) is None or text.strip()


@given(
    st.lists(
        st.sampled_from(sorted({w for p in grammar.every_phrase() for w in p.split()})), max_size=10
    )
)
def test_shuffled_words_are_parsed_without_a_crash(words: list[str]) -> None:
    claims = parse(" ".join(words))
    assert claims is None or claims.objects


@pytest.mark.parametrize(
    "text", ["", "a cat", "a red", "a large red star in the kitchen", "four small blue circles"]
)
def test_foreign_text_is_no_claim(text: str) -> None:
    assert parse(text) is None


def test_the_vocabulary_covers_every_caption() -> None:
    def words(texts: object) -> set[str]:
        return set(" ".join(texts).replace(",", " ,").replace(":", " :").split())  # type: ignore[call-overload]

    data = Shapes(ShapesConfig(), "train")
    known = words(data.vocabulary())
    assert words(caption for index in range(500) for caption in data[index].captions) <= known
    assert len(known) < 64


# --- splits ---------------------------------------------------------------------------------------


def test_an_example_is_the_same_in_another_process_and_order() -> None:
    code = f"from tests_shapes import digest; print(*(digest(split, range(20)) for split in {SPLITS!r}))"  # noqa: E501
    source = (
        f"import sys, importlib.util as u; s = u.spec_from_file_location('tests_shapes', {__file__!r}); "  # noqa: E501
        + (
            f"m = u.module_from_spec(s); sys.modules['tests_shapes'] = m; s.loader.exec_module(m); {code}"  # noqa: E501
        )
    )
    output = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    ).stdout
    for split in SPLITS:
        data = Shapes(ShapesConfig(), split)
        data[1000], data[3]  # earlier draws must not matter
    assert output.split() == [digest(split, range(20)) for split in SPLITS]


def test_no_held_out_combination_is_in_train_or_val() -> None:
    for of in ("full", "simple"):
        for split in ("train", "val"):
            data = Shapes(ShapesConfig(grammar=of), split)
            shown = [obj for index in range(3000) for obj in data.scene(index).objects]
            assert not {(o.colour, o.shape) for o in shown} & grammar.HELD_OUT_COLOUR_SHAPES
            assert not {(o.shape, o.position) for o in shown} & grammar.HELD_OUT_SHAPE_POSITIONS


def test_every_other_combination_is_in_train() -> None:
    data = Shapes(ShapesConfig(), "train")
    shown = [obj for index in range(4000) for obj in data.scene(index).objects]
    assert len({(o.colour, o.shape) for o in shown}) == 8 * 4 - len(grammar.HELD_OUT_COLOUR_SHAPES)
    assert len({(o.shape, o.position) for o in shown}) == 4 * 9 - len(
        grammar.HELD_OUT_SHAPE_POSITIONS
    )
    assert {o.size for o in shown} == set(grammar.SIZES)
    assert {data.scene(index).background for index in range(100)} == set(grammar.BACKGROUNDS)


def test_every_composition_holds_an_unseen_combination() -> None:
    for of in ("full", "simple"):
        data = Shapes(ShapesConfig(grammar=of), "compositions")
        assert all(data.scene(index).held_out for index in range(500))
        claims = [parse(caption) for index in range(300) for caption in data[index].captions]
        assert all(claim and any(obj.held_out for obj in claim.objects) for claim in claims)


def test_the_mix_of_scenes_is_the_configured_one() -> None:
    data = Shapes(ShapesConfig(), "train")
    found = [data.scene(index).kind for index in range(4000)]
    for kind, share in {"one": 0.55, "two": 0.25, "three": 0.08, "count": 0.12}.items():
        assert found.count(kind) / 4000 == pytest.approx(share, abs=0.03)


def test_val_captions_of_one_object_state_every_attribute() -> None:
    data = Shapes(ShapesConfig(one_object=1, two_objects=0, three_objects=0, counts=0), "val")
    claims = [parse(caption) for index in range(300) for caption in data[index].captions]
    assert all(claim and claim.objects[0].size and claim.objects[0].position for claim in claims)


def test_the_simple_grammar_is_a_part_of_the_full_one() -> None:
    data = Shapes(ShapesConfig(grammar="simple"), "train")
    scenes = [data.scene(index) for index in range(1000)]
    assert {s.kind for s in scenes} == {"one", "two"}
    assert {o.shape for s in scenes for o in s.objects} == set(SIMPLE.shapes)
    assert {o.position for s in scenes for o in s.objects} == set(SIMPLE.positions)
    assert {s.background for s in scenes} == {"black"}
    assert all(parse(caption) for index in range(200) for caption in data[index].captions)


def test_splits_seeds_and_indexes_differ() -> None:
    every = [(seed, split, index) for seed in (0, 1) for split in SPLITS for index in (0, 1)]
    firsts = [
        Shapes(ShapesConfig(seed=seed), split)[index].image.tobytes()
        for seed, split, index in every
    ]
    assert len(set(firsts)) == len(firsts)
    prints = [
        Shapes(ShapesConfig(seed=seed), split).fingerprint() for seed in (0, 1) for split in SPLITS
    ]
    assert len(set(prints)) == len(prints)


def test_a_data_set_is_picklable_and_endless_only_in_train() -> None:
    data = pickle.loads(pickle.dumps(build(ShapesConfig(), "train")))
    assert data.endless
    assert data[10**9].key == "train-1000000000"
    assert not build(ShapesConfig(), "val").endless


def test_bad_requests_are_refused() -> None:
    with pytest.raises(UserError, match="no split 'test'"):
        Shapes(ShapesConfig(), "test")
    with pytest.raises(IndexError, match="negative"):
        Shapes(ShapesConfig(), "val")[-1]
    with pytest.raises(ValidationError, match="one_object above 0"):
        ShapesConfig(grammar="simple", one_object=0, two_objects=0)


# --- images ---------------------------------------------------------------------------------------


def exact_area(shape: str, radius: float) -> float:
    if shape == "circle":
        return math.pi * radius**2
    if shape == "square":
        return (2 * render.SQUARE_HALF_SIDE * radius) ** 2
    if shape == "triangle":
        return 0.75 * math.sqrt(3) * (render.TRIANGLE_TIP * radius) ** 2
    return 5 * math.sin(math.pi / 5) * render.STAR_NOTCH * (render.STAR_TIP * radius) ** 2


@pytest.mark.parametrize("shape", grammar.SHAPES)
@pytest.mark.parametrize("radius", [3.5, 5.7, 11.4])
def test_coverage_sums_to_the_area(shape: str, radius: float) -> None:
    at = np.arange(40, dtype=np.float32) - 19.8
    alpha = render.coverage(shape, at[None, :], at[:, None], radius)
    assert alpha.min() == 0
    assert alpha.max() == 1
    assert alpha.sum() == pytest.approx(exact_area(shape, radius), rel=0.03)


def test_objects_stay_inside() -> None:
    tip = max(render.STAR_TIP, render.TRIANGLE_TIP)
    for index in range(2000):
        scene, draws = scene_of(index, grammar.KINDS[index % 4])
        for obj in render.place(scene, draws):
            assert tip * obj.radius <= min(obj.x, obj.y, render.UNITS - obj.x, render.UNITS - obj.y)


@pytest.mark.parametrize("size", [24, 32, 64, 100])
def test_objects_do_not_touch(size: int) -> None:
    data = Shapes(ShapesConfig(image_size=size), "train")
    for index in range(150):
        scene, image = data.scene(index), data[index].image.astype(int)
        assert image.shape == (size, size, 3)
        background = np.median(image[0], axis=0)
        assert len(scene.objects) == _pieces(np.abs(image - background).max(axis=2) > 12)


def _pieces(mask: np.ndarray) -> int:
    return int(ndimage.label(mask, structure=np.ones((3, 3)))[1])


def test_golden_pixels() -> None:
    placed = (render.Placed("square", 8.0, 8.0, 4.0 / render.SQUARE_HALF_SIDE, (1.0, 0.5, 0.0)),)
    image = render.draw(placed, (0.0, 0.0, 0.0), 32)
    assert (image[4:12, 4:12] == (255, 128, 0)).all()
    assert image.astype(int).sum() == 64 * (255 + 128)
    doubled = render.draw(placed, (0.0, 0.0, 0.0), 64)
    assert (doubled == image.repeat(2, 0).repeat(2, 1)).all()


def test_golden_examples() -> None:
    example = Shapes(ShapesConfig(), "val")[0]
    assert example.captions[0] == "there are two large pink circles"
    # A rounding at a pixel's edge may fall otherwise on another processor.
    assert int(example.image.astype(int).sum()) == pytest.approx(121046, abs=4)
    assert example.image.max((0, 1)).tolist() == [255, 136, 209]


def test_all_colours_and_backgrounds_are_far_apart() -> None:
    colours = list(render.PALETTE.values())
    pairs = [
        (a, b)
        for n, a in enumerate(colours)
        for b in [*colours[:n], *render.BACKGROUND_PALETTE.values()]
    ]
    assert min(math.dist(a, b) for a, b in pairs) > 0.44
