"""What `t2i install` is given: folders win, and a path that is misspelt is never a name."""

import pytest

from t2i.core.errors import UserError
from t2i.core.kit.targets import target_of


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with the package `my-net`, the folder `plain`, a wheel and a source package."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-net").mkdir()
    (tmp_path / "my-net" / "pyproject.toml").write_text("")
    (tmp_path / "plain").mkdir()
    for name in ("a-1-py3-none-any.whl", "a-1.tar.gz", "notes.txt"):
        (tmp_path / name).write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("my-net", "my-net"),
        ("./my-net", "my-net"),
        ("my-net/", "my-net"),
        ("./my-net[test]", "my-net[test]"),
        ("my-net[test]", "my-net[test]"),
        ("My_Net", "my-net"),  # the index would take it for the same name
        ("a-1-py3-none-any.whl", "a-1-py3-none-any.whl"),
        ("a-1.tar.gz", "a-1.tar.gz"),
    ],
)
def test_what_is_here(folder, text, found):
    target = target_of(text)
    assert (target.text, target.local) == (str(folder / found), True)
    assert target.builds == (not found.endswith(".whl"))
    assert ("is the folder ./my-net here" in target.meant) == (
        text.lower()[:2] == "my" and "/" not in text
    )
    assert target_of(f"x @ {(folder / 'a-1.tar.gz').as_uri()}").local


@pytest.mark.parametrize(
    ("text", "builds"),
    [
        ("some-net", False),
        ("my-net>=0", False),
        ("https://x.org/a-1-py3-none-any.whl", False),
        ("https://x.org/a-1-py3-none-any.whl#sha256=00", False),
        ("https://x.org/a-1.tar.gz", True),
        ("git+https://x.org/a", True),
        ("a @ git+https://x.org/a", True),
        ("a @ https://x.org/a-1-py3-none-any.whl", False),
    ],
)
def test_what_is_elsewhere(text, builds):
    target = target_of(text)
    assert (target.text, target.local, target.builds) == (text, False, builds)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("./typo", r"\./typo: no such file or folder"),
        ("typo/", "no such file or folder"),
        ("../typo", "no such file or folder"),
        ("~/no-such-folder-typo", "no such file or folder"),
        ("a/typo", "no such file or folder"),
        ("a\\typo", "no such file or folder"),
        ("typo.whl", "no such file or folder"),
        ("typo.tar.gz", "no such file or folder"),
        ("file:///no/such", "no such file or folder"),
        ("./typo[test]", "no such file or folder"),
        (".", "no Python package: it has no pyproject.toml and no setup.py"),
        ("./plain", "no Python package"),
        ("plain", r"no Python package.*on the index write 'plain>=0'"),
        ("./notes.txt", r"neither a folder, a wheel \(\.whl\) nor a source package"),
        ("", "neither a path nor the name"),
        ("-r x", "neither a path nor the name"),
        ("two names", "neither a path nor the name"),
    ],
)
def test_a_typo_never_becomes_a_name(text, reason):
    with pytest.raises(UserError, match=reason) as caught:
        target_of(text)
    assert "\n" not in str(caught.value)
