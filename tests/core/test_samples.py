"""Pictures drawn into a folder. (What stands in samples.jsonl is tested with the command, in tests/cli.)"""

import numpy as np
import pytest
import torch
from PIL import Image

from t2i.core.errors import UserError
from t2i.core.model import build
from t2i.core.runs import resolve
from t2i.core.samples import GRID_PICTURES, read_prompts, write_samples

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build(resolve("toy"))


@pytest.mark.parametrize(("prompts", "n", "columns", "rows"), [(3, 4, 4, 3), (5, 1, 3, 2), (1, 40, 7, 6)])
def test_the_grid_has_a_row_a_prompt_where_that_fits(model, tmp_path, prompts, n, columns, rows):
    write_samples(model, ["x"] * prompts, tmp_path / "o", n=n)
    sheet = Image.open(tmp_path / "o" / "grid.png")
    cell = 8 * 12 + 2  # 8 pixels, enlarged to 96, and the margin
    assert sheet.size == (columns * cell + 2, rows * cell + 2)
    first = np.asarray(Image.open(tmp_path / "o" / "0000-000.png"))
    np.testing.assert_array_equal(np.asarray(sheet)[2 : 2 + 96 : 12, 2 : 2 + 96 : 12], first)


def test_a_grid_of_very_many_shows_the_first(model, tmp_path):
    records = write_samples(model, ["x"] * (GRID_PICTURES + 44), tmp_path / "o")
    assert len(records) == GRID_PICTURES + 44
    assert Image.open(tmp_path / "o" / "grid.png").size == (16 * 98 + 2, 16 * 98 + 2)


def test_what_was_drawn_before_an_interruption_stays(model, tmp_path):
    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_samples(model, ["x"] * 6, tmp_path / "o", batch_size=2, progress=stop)
    assert len((tmp_path / "o" / "samples.jsonl").read_text().splitlines()) == 2
    assert sorted(path.name for path in (tmp_path / "o").glob("*.png")) == ["0000-000.png", "0001-000.png"]


def test_a_file_in_the_way_is_named(model, tmp_path):
    (tmp_path / "o").write_text("mine")
    with pytest.raises(UserError, match="o is there already"):
        write_samples(model, ["x"], tmp_path / "o")
    assert (tmp_path / "o").read_text() == "mine"


def test_prompts_are_lines(tmp_path):
    (tmp_path / "p").write_bytes("\ufeffone\r\n\n two\u2028still two \nthree".encode())
    assert read_prompts(tmp_path / "p") == ["one", "two\u2028still two", "three"]


def test_a_failure_before_the_first_picture_leaves_no_folder(model, tmp_path, monkeypatch):
    def fail(captions):
        raise UserError("this encoder encodes no captions")

    monkeypatch.setattr(model.text_encoder, "encode", fail)
    with pytest.raises(UserError, match="encodes no captions"):
        write_samples(model, ["x"], tmp_path / "o")
    assert not (tmp_path / "o").exists()
