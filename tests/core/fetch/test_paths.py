"""Where the cache is."""

import pytest

from t2i.core.errors import UserError
from t2i.core.fetch.paths import cache_dir


def test_t2i_home_wins_over_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("T2I_HOME", raising=False)
    assert cache_dir() == tmp_path / "xdg" / "t2i"
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home"
    assert cache_dir().is_dir()


def test_a_cache_that_cannot_be_made_names_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set T2I_HOME to a writable folder"):
        cache_dir()
