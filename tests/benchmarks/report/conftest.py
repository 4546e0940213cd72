"""Results of two models, with every kind of row and with texts that try to be markup."""

import numpy as np
import pytest

from t2i.benchmarks.results import Column, Results, Row
from t2i.benchmarks.run import grids
from t2i.core.interfaces.scoring import Published

HEADLINE = Column("val", "accuracy", "all", "all right %", "higher")
FID = Column("val", "fid", "fid", "FID", "lower")
NASTY = "<script>alert(1)</script> & $x_1$ [bold] \x1b[2J"


def make_row(name, all_right, fid, seed=0, kind="model"):
    return Row(
        name=name if seed == 0 else f"{name}-seed{seed}", kind=kind,
        model=name if kind == "model" else "", seed=seed,
        scores={"val": {"accuracy": {"all": all_right, "colour": 90.0}, "fid": {"fid": fid}}},
        intervals={"val": {"accuracy": {"all": (all_right - 5, all_right + 4)}}},
        warnings=[f"mode collapse {NASTY}"] if name == "gan" else [],
        training={
            "parameters": {"all": 2e6, "trained": 1.5e6}, "seconds": 210.0,
            "images_per_second": 300.0,
            "peak_memory_bytes": 2**30,
        } if kind == "model" else {},
        sampling={"name": "direct", "seconds_per_image": 0.01} if kind == "model" else {},
        curve=[{"stage": "one", "step": i, "seconds": 30.0 * i, "losses": {NASTY: 1.0 / i}} for i in range(1, 6)],  # noqa: E501
    )  # fmt: skip


@pytest.fixture
def results(tmp_path):
    for shade, folder in ((250, "real"), (90, "gan"), (30, "ldm")):
        image = np.full((32, 32, 3), shade, np.uint8)
        for sample in range(2):
            grids.save_image(tmp_path, folder, 0, sample, image)
    protocol = {
        "protocol": "tiny", "image_size": 32, "pictures": "uint8", "real_images": "others",
        "prompts": [{"name": "val", "count": 12, "split": "val", "about": NASTY}],
        "measures": {"fid": {"metric": "fid", "extractor": {"name": "cnn", "weights_sha256": "ab" * 32}}},  # noqa: E501
        "reference": {"count": 30, "pictures": f"all {NASTY}"},
    }  # fmt: skip
    return Results(
        benchmark="squares", protocol=protocol, protocol_hash="f" * 64, budget={"minutes": 3.5},
        columns=[HEADLINE, FID], headline=HEADLINE, bars=[HEADLINE], environment={"device": "cpu"},
        rows=[
            make_row("real", 100, 0.5, kind="real"),
            make_row("ldm", 80, 9.0), make_row("gan", 40, 30.0),
            make_row("ldm", 90, 7.0, 1),
            make_row("wrong", 1, 50, kind="floor"),
        ],
        grid=[{"set": "val", "caption": NASTY}], out=tmp_path,
        published=[Published("Paper", {"FID": 12.5}, f"claim {NASTY}", "somebody 2020")],
        left_out={"clip": NASTY},
    )  # fmt: skip


@pytest.fixture
def row():
    """The function that makes a row of a model, or of real images."""
    return make_row


@pytest.fixture
def nasty():
    return NASTY
