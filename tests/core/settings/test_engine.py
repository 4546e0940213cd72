"""The engine's settings."""

import pytest

from t2i.core.errors import UserError
from t2i.core.settings.engine import EngineConfig


def test_what_processes_cannot_share_is_refused_with_what_they_can():
    EngineConfig(batch_size=680, accumulate=5).check_shared(8)
    for sizes, processes, remedy in (
        ({"batch_size": 680, "accumulate": 40}, 8, "set accumulate=17,"),
        ({"batch_size": 680, "accumulate": 40}, 16, "set batch_size=640,"),
        ({"batch_size": 4}, 16, "set batch_size=16,"),
    ):
        with pytest.raises(UserError, match=f"stage gan: batch_size .*{remedy}"):
            EngineConfig(**sizes).check_shared(processes, "gan")
