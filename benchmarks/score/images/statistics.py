"""Statistics of features in .npz files: mean `mu` and covariance `sigma`.

The layout is that of TTUR and pytorch-fid. Files of this project say beside it what was computed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from t2i.benchmarks.score.images.arrays import kinds, stored_arrays
from t2i.benchmarks.score.metrics.fid import Gaussian
from t2i.core.errors import UserError
from t2i.core.io.files import write_bytes

ABOUT = "about"
"""Name of the array, a text of JSON, that says what the statistics were computed from."""


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of the features of some images.

    Args:
        where: The file, for people.
        gaussian: Mean and covariance.
        about: What they were computed from: "extractor" (as `Extractors.describe` returns it),
            "protocol" and "images" (their number). Empty if the file does not say.
    """

    where: str
    gaussian: Gaussian
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int | None:
        """The number of images. None: unknown."""
        found = self.about.get("images")
        return found if isinstance(found, int) else None

    def check(self, extractor: Mapping[str, Any]) -> str:
        """Check that the statistics fit a feature extractor.

        Args:
            extractor: Its description, as `Extractors.describe` returns it, of the layer that is
                compared.

        Returns:
            A note of what is assumed. Empty if nothing is.

        Raises:
            UserError: They are of other features.
        """
        ours = dict(self.about.get("extractor") or {})
        for key in ("name", "layer", "weights_sha256"):
            if ours and ours.get(key) != extractor.get(key):
                raise UserError(
                    f"{self.where}: statistics of other features ({key} {ours.get(key)}, here "
                    f"{extractor.get(key)}); name the same --protocol, --features and weights, or "
                    "compute them again with --save-statistics"
                )
        if ours:
            return ""
        count = "" if self.count else ", and of how many images is unknown"
        return (
            f"{self.where} does not say how it was computed: assumed with the same network, layer "
            f"and resizing as here{count}"
        )


def read_statistics(path: Path) -> Statistics | None:
    """Read statistics from a file.

    Args:
        path: The file.

    Returns:
        The statistics; None if the file holds none.

    Raises:
        UserError: They are damaged, or of a wrong shape.
    """
    arrays = stored_arrays(path)
    if not {"mu", "sigma"} <= set(arrays):
        return None
    mean, covariance = arrays["mu"], arrays["sigma"]
    if len(mean.shape) != 1 or covariance.shape != mean.shape * 2 or 0 in mean.shape:
        raise UserError(f"{path}: it holds {kinds(arrays)}; mu must be (D,), sigma (D, D)")
    if not all(array.dtype.kind == "f" for array in (mean, covariance)):
        raise UserError(f"{path}: it holds {kinds(arrays)}; mu and sigma must be real numbers")
    found = Gaussian(mean.read().astype(np.float64), covariance.read().astype(np.float64))
    if not (np.isfinite(found.mean).all() and np.isfinite(found.covariance).all()):
        raise UserError(f"{path}: mu or sigma holds numbers that are not finite; compute it again")
    spread = np.abs(found.covariance).max()
    if not np.allclose(found.covariance, found.covariance.T, atol=1e-4 * spread):
        raise UserError(f"{path}: sigma is not symmetric, so it is no covariance")
    if np.linalg.eigvalsh(found.covariance)[0] < -1e-3 * spread:
        raise UserError(f"{path}: sigma has negative variances, so it is no covariance")
    about = arrays.get(ABOUT)
    return Statistics(str(path), found, _about(str(about.read())) if about else {})


def _about(text: str) -> dict[str, Any]:
    """Parse the description; empty if it is something else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write statistics, for this and other programs.

    Args:
        path: The file, which ends in .npz.
        statistics: The statistics. `where` is not written.
    """
    buffer = io.BytesIO()
    about = np.array(json.dumps(dict(statistics.about)))
    np.savez(buffer, mu=statistics.gaussian.mean, sigma=statistics.gaussian.covariance, about=about)
    write_bytes(path, buffer.getvalue())
