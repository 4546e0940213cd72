"""Files of tensors: sound ones only, and readable by whom the umask allows."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from t2i.core.errors import UserError
from t2i.core.io.folders import arriving
from t2i.core.io.sealed import sealed
from t2i.core.io.tensors import load_tensors, save_tensors


@settings(max_examples=80)
@given(junk=st.binary(max_size=200))
def test_foreign_bytes_are_no_safetensors(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("s") / "w.safetensors"
    path.write_bytes(junk)
    with pytest.raises(UserError, match=r"w\.safetensors"):
        load_tensors(path, "model")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_of_tensors_keep_the_umask(tmp_path, umask, mode):
    """safetensors writes for the owner only: colleagues on a shared disk could not read a model."""
    before = os.umask(umask)
    try:
        with sealed(tmp_path / "model") as place:
            save_tensors(place / "w.safetensors", {"a": torch.ones(2)})
        with arriving(tmp_path / "export") as place:  # as another library writes it
            save_file({"a": torch.ones(2)}, place / "w.safetensors")
    finally:
        os.umask(before)
    for folder in ("model", "export"):
        assert (tmp_path / folder / "w.safetensors").stat().st_mode & 0o777 == mode, folder
        assert [path.name for path in (tmp_path / folder).iterdir() if "tmp" in path.name] == []
