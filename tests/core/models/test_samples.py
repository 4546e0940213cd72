"""Images drawn into a folder. (What stands in samples.jsonl is tested with the command, in
tests/cli.)"""

import json
import os
import zlib

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.prompts import read_prompts
from t2i.core.models.sample_folder import GRID_IMAGES
from t2i.core.models.samples import write_samples
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build(resolve_config("toy"))


@pytest.mark.parametrize(
    ("prompts", "n", "columns", "rows"), [(3, 4, 4, 3), (5, 1, 3, 2), (1, 40, 7, 6)]
)
def test_the_grid_has_a_row_a_prompt_where_that_fits(model, tmp_path, prompts, n, columns, rows):
    write_samples(model, ["x"] * prompts, tmp_path / "o", n=n)
    sheet = Image.open(tmp_path / "o" / "grid.png")
    cell, words = 96, 16  # 8 pixels, enlarged; the height of a line
    width, height = (columns * (cell + 2) - 2 + 20, rows * (cell + 2) + 10 + words + 10)
    if n == 1:
        width, height = columns * (cell + 10) + 10, rows * (cell + 2 + words + 10) + 10
    elif prompts > 1:
        height = rows * (cell + 2 + words + 10) + 10
    assert sheet.size == (width, height)
    first = np.asarray(Image.open(tmp_path / "o" / "0000-000.png"))
    np.testing.assert_array_equal(np.asarray(sheet)[10 : 10 + 96 : 12, 10 : 10 + 96 : 12], first)


def test_a_grid_of_very_many_shows_the_first(model, tmp_path):
    records = write_samples(model, ["x"] * (GRID_IMAGES + 44), tmp_path / "o")
    assert len(records) == GRID_IMAGES + 44
    width, height = Image.open(tmp_path / "o" / "grid.png").size
    assert width == 16 * (96 + 10) + 10
    assert height > 16 * (96 + 10)  # with a line that says that these are the first


def test_what_was_drawn_before_an_interruption_stays(model, tmp_path):
    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_samples(model, ["x"] * 6, tmp_path / "o", batch_size=2, progress=stop)
    assert len((tmp_path / "o" / "samples.jsonl").read_text().splitlines()) == 2
    assert sorted(path.name for path in (tmp_path / "o").glob("*.png")) == [
        "0000-000.png",
        "0001-000.png",
    ]


def test_a_file_in_the_way_is_named(model, tmp_path):
    (tmp_path / "o").write_text("mine")
    with pytest.raises(UserError, match="o is there already"):
        write_samples(model, ["x"], tmp_path / "o")
    assert (tmp_path / "o").read_text() == "mine"


def test_prompts_are_lines(tmp_path):
    (tmp_path / "p").write_bytes("\ufeffone\r\n\n two\u2028still two \nthree".encode())
    assert read_prompts(tmp_path / "p") == ["one", "two\u2028still two", "three"]


def test_a_failure_before_the_first_image_leaves_no_folder(model, tmp_path, monkeypatch):
    def fail(captions):
        raise UserError("this encoder encodes no captions")

    monkeypatch.setattr(model.text_encoder, "encode", fail)
    with pytest.raises(UserError, match="encodes no captions"):
        write_samples(model, ["x"], tmp_path / "o")
    assert not (tmp_path / "o").exists()


# --- a command that was stopped -------------------------------------------------------------------


def stopped(model, folder, after, **request):
    """A command that is interrupted once `after` images are drawn: before those of the last batch
    are written."""

    def stop(done, total):
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_samples(model, CAPTIONS, folder, batch_size=2, progress=stop, **request)


def contents(folder):
    """Bytes of the images, and the lines but for their seconds."""
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert all(line.pop("seconds") > 0 for line in lines)
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".png"
    }, lines


CAPTIONS = [f"caption {i}" for i in range(7)]


def test_the_same_request_again_draws_what_is_missing_and_gives_the_same_bytes(model, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write_samples(model, CAPTIONS, whole, batch_size=2)
    stopped(model, cut, 4)
    # A kill leaves less: an image without its line, half a line, half an image beside its place.
    (cut / "0002-000.png").write_bytes((whole / "0002-000.png").read_bytes())
    (cut / ".0003-000.png.tmp").write_bytes(b"half")
    (cut / "0001-000.png").write_bytes((cut / "0001-000.png").read_bytes()[:-20])
    with open(cut / "samples.jsonl", "a") as file:
        file.write('{"file": "0002-0')
    drawn = []
    records = write_samples(
        model, CAPTIONS, cut, batch_size=2, progress=lambda done, total: drawn.append(total)
    )
    assert drawn == [7] * 4  # the batch of 0000 and 0001 too: 0001 is damaged
    assert contents(cut) == contents(whole)
    assert sorted(path.name for path in cut.iterdir()) == sorted(
        path.name for path in whole.iterdir()
    )
    assert [record["prompt"] for record in records] == CAPTIONS
    before = (cut / "samples.jsonl").read_bytes(), drawn.clear()
    assert (
        write_samples(model, CAPTIONS, cut, batch_size=2, progress=lambda *_: drawn.append(1))
        == records
    )
    assert ((cut / "samples.jsonl").read_bytes(), drawn) == (before[0], [])


def test_images_that_somebody_sent_are_looked_at_safely(model, tmp_path):
    out, whole = tmp_path / "o", tmp_path / "whole"
    for folder in (out, whole):
        write_samples(model, CAPTIONS, folder, batch_size=2)
    names = [path.name for path in sorted(out.glob("0*.png"))]
    pipe, other, broken = (out / name for name in names[:3])
    pipe.unlink()
    os.mkfifo(pipe)
    with Image.open(other) as image:
        image.save(other, "EPS")  # would be handed to Ghostscript
    data = broken.read_bytes()
    at = data.index(b"IDAT") - 4
    length = int.from_bytes(data[at : at + 4])
    pixels = b"IDAT" + bytes(length)  # its checksum is right, its content is none
    checksum = zlib.crc32(pixels).to_bytes(4)
    broken.write_bytes(data[: at + 4] + pixels + checksum + data[at + 12 + length :])
    write_samples(model, CAPTIONS, out, batch_size=2)
    assert contents(out) == contents(whole)


def test_only_batches_that_are_not_whole_are_drawn(model, tmp_path):
    stopped(model, tmp_path / "o", 6)
    drawn = []
    write_samples(
        model,
        CAPTIONS,
        tmp_path / "o",
        batch_size=2,
        progress=lambda done, total: drawn.append(total),
    )
    assert drawn == [3, 3]


def test_what_a_image_is_drawn_with_changes_it_by_a_level_at_most(model, tmp_path):
    write_samples(model, CAPTIONS, tmp_path / "a", batch_size=7)
    write_samples(model, CAPTIONS, tmp_path / "b", batch_size=3)
    for path in (tmp_path / "a").glob("0*.png"):
        ours, theirs = (
            np.asarray(Image.open(p)).astype(int) for p in (path, tmp_path / "b" / path.name)
        )
        assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 1}, "0000-000.png has another seed"),
        ({"prompts": ["other", *CAPTIONS[1:]]}, "0000-000.png has another prompt"),
        ({"prompts": CAPTIONS[:1]}, "0001-000.png is not asked for"),
        ({"truncation": 0.5}, "0000-000.png has another sampler"),
        ({"weights": True}, "0000-000.png has another fingerprint"),
    ],
)
def test_another_request_is_refused_in_a_used_folder(model, tmp_path, change, reason):
    write_samples(model, CAPTIONS[:2], tmp_path / "o")
    before = {path.name: path.read_bytes() for path in (tmp_path / "o").iterdir()}
    request = {"prompts": CAPTIONS[:2], **change}
    if request.pop("weights", False):
        model.generator.out.weight.data += 1e-3
    if truncation := request.pop("truncation", None):
        request["sampler"] = model.sampler(settings={"truncation": truncation})
    with pytest.raises(
        UserError, match=f"holds images of another request .{reason}.: choose another --out"
    ):
        write_samples(model, request.pop("prompts"), tmp_path / "o", **request)
    assert {path.name: path.read_bytes() for path in (tmp_path / "o").iterdir()} == before


def test_more_of_the_same_joins_what_is_there(model, tmp_path):
    write_samples(model, CAPTIONS[:2], tmp_path / "o", batch_size=2)
    records = write_samples(model, CAPTIONS[:4], tmp_path / "o", batch_size=2)
    assert [record["file"] for record in records] == [f"000{i}-000.png" for i in range(4)]


def test_two_commands_do_not_draw_into_one_folder(model, tmp_path):
    write_samples(model, ["x"], tmp_path / "o")
    with (
        FileLock(tmp_path / "o" / ".lock"),
        pytest.raises(UserError, match="another command samples into"),
    ):
        write_samples(model, ["x"], tmp_path / "o")
