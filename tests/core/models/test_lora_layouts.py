"""The names of tensors in LoRA files of all layouts."""

import json
from pathlib import Path

import pytest
import torch

from t2i.core.models.lora.files import parse_lora
from t2i.core.models.lora.layouts import METADATA, pairs_of

DOWN, UP = torch.ones(2, 3), torch.ones(4, 2)
NAMES = {
    "unet.x.to_q.lora_A.weight": "unet.x.to_q",
    "unet.x.to_q.lora.down.weight": "unet.x.to_q",
    "x.to_q.lora_A.default.weight": "x.to_q",
    "lora_unet_x_to_q.lora_down.weight": "lora_unet_x_to_q",
    "unet.x.attn1.processor.to_q_lora.down.weight": "unet.x.attn1.to_q",
    "unet.x.attn1.processor.to_out_lora.down.weight": "unet.x.attn1.to_out.0",
    "text_encoder.x.self_attn.to_out_lora.down.weight": "text_encoder.x.self_attn.out_proj",
    "text_encoder.x.q_proj.lora_linear_layer.down.weight": "text_encoder.x.q_proj",
}


@pytest.mark.parametrize("name", NAMES)
def test_factors_are_found_under_all_names(name):
    second = name.replace("lora_A", "lora_B").replace("down.weight", "up.weight")
    [pair] = pairs_of({name: DOWN, second: UP}, {})
    assert (pair.layer, pair.scale, pair.shape) == (NAMES[name], 1.0, (4, 3))
    assert torch.equal(pair.change(), torch.full((4, 3), 2.0))


def test_alpha_is_in_a_tensor_or_in_the_metadata():
    kohya = {"a.lora_down.weight": DOWN, "a.lora_up.weight": UP, "a.alpha": torch.tensor(1.0)}
    assert pairs_of(kohya, {})[0].scale == 0.5
    told = {"unet.lora_alpha": 4, "unet.alpha_pattern": {"b.y": 8}}
    tensors = {f"unet.{name}.lora_{x}.weight": y for name in ("x", "b.y")
               for x, y in (("A", DOWN), ("B", UP))}  # fmt: skip
    pairs = pairs_of(tensors, {METADATA: json.dumps(told)})
    assert [pair.scale for pair in pairs] == [2.0, 4.0]


def test_a_layer_with_other_tensors_or_half_a_pair_is_left_out():
    whole = {"a.lora_down.weight": DOWN, "a.lora_up.weight": UP}
    for name in ("a.dora_scale", "a.lora_mid.weight", "a.lora_B.bias"):
        assert pairs_of({**whole, name: torch.ones(1)}, {}) == []
    assert pairs_of({"a.lora_down.weight": DOWN}, {}) == []
    assert pairs_of({**whole, "a.lora_up.weight": torch.ones(4, 3)}, {}) == []


def test_kernels_are_multiplied_as_convolutions_one_after_the_other():
    draw = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 3, 3, 3, generator=draw), torch.randn(4, 2, 1, 1, generator=draw)
    x = torch.randn(1, 3, 5, 5, generator=draw)
    [pair] = pairs_of({"a.lora_down.weight": down, "a.lora_up.weight": up}, {})
    both = torch.conv2d(torch.conv2d(x, down), up)
    torch.testing.assert_close(torch.conv2d(x, pair.change()), both)


def test_peft_s_own_settings_name_alpha_and_the_root_of_the_rank():
    tensors = {f"base_model.model.b.y.lora_{x}.weight": y for x, y in (("A", DOWN), ("B", UP))}
    for told, scale in (
        ({"lora_alpha": 4}, 2.0),
        ({"lora_alpha": 4, "alpha_pattern": {"b.y": 1}}, 0.5),
        ({"lora_alpha": 4, "use_rslora": True}, 4 / 2**0.5),
    ):
        [pair] = pairs_of(tensors, {METADATA: json.dumps(told)})
        assert pair.scale == pytest.approx(scale)


def test_damaged_factors_are_left_out():
    whole = {"a.lora_down.weight": DOWN, "a.lora_up.weight": UP}
    assert pairs_of({**whole, "a.alpha": torch.ones(2)}, {}) == []
    empty = {"a.lora_down.weight": torch.ones(0, 3), "a.lora_up.weight": torch.ones(4, 0)}
    assert pairs_of(empty, {}) == []
    assert pairs_of({**whole, "a.lora_up.weight": torch.ones(0, 2)}, {}) == []


def test_a_file_whose_name_ends_in_a_number_is_meant(tmp_path):
    (tmp_path / "a:2").touch()
    assert parse_lora(str(tmp_path / "a:2")) == (tmp_path / "a:2", 1.0)
    assert parse_lora(str(tmp_path / "a:3")) == (tmp_path / "a", 3.0)


def test_a_weight_stands_after_the_last_colon():
    assert parse_lora("a.safetensors") == (Path("a.safetensors"), 1.0)
    assert parse_lora("a.safetensors:0.5") == (Path("a.safetensors"), 0.5)
    assert parse_lora("a:b.safetensors:-1") == (Path("a:b.safetensors"), -1.0)
    assert parse_lora("a:b") == (Path("a:b"), 1.0)
