"""The arithmetic of functions, against numbers that are known."""

import pytest
import torch
from torch import nn

from t2i.benchmarks.run.operations import attainable_seconds, count, step_operations
from t2i.core.errors import UserError
from t2i.core.runs.configure import resolve_config

SMALL = ["nf=2", "z_dim=4", "image_size=32", "encoder.width=8"]
PIXELS = 2 * 8 * 8


def test_a_convolution_is_counted_forwards_and_backwards():
    net = nn.Conv2d(3, 16, 3, padding=1)
    forward = 2 * PIXELS * 16 * 3 * 9
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    assert count(lambda: net(images)).total == forward
    assert count(lambda: net(images).sum().backward()).total == 3 * forward
    assert count(lambda: net(images.detach()).sum().backward()).total == 2 * forward


def test_double_backward_is_counted():
    weight = torch.randn(4, 4, requires_grad=True)
    x = torch.randn(5, 4, requires_grad=True)
    product = 2 * 5 * 4 * 4

    def penalty():
        (slope,) = torch.autograd.grad((x @ weight).tanh().sum(), x, create_graph=True)
        slope.square().sum().backward()

    # Forwards, the slope, and backwards through both: of x and weight for each of them.
    assert count(penalty).total == 6 * product


def test_attention_is_counted_with_any_kernel():
    q = torch.randn(2, 3, 16, 8, requires_grad=True)
    scores = 2 * 2 * 3 * 16 * 16 * 8
    attend = nn.functional.scaled_dot_product_attention
    counted = count(lambda: attend(q, q, q))
    assert counted.total == 2 * scores
    backward = count(lambda: attend(q, q, q).sum().backward())
    assert backward.total in (6 * scores, 7 * scores)  # a flash kernel computes the scores again
    assert attainable_seconds(backward) > 0


def test_equal_sizes_are_one_kind_and_the_largest_comes_first():
    small, large = torch.randn(2, 8), torch.randn(8, 64)
    counted = count(lambda: [small @ small.T, small @ large, small @ large])
    assert [(kind.name, kind.calls) for kind in counted.kinds] == [("mm", 2), ("mm", 1)]
    assert counted.kinds[0].shapes == ((2, 8), (8, 64))
    assert counted.kinds[0].each == 2 * 2 * 8 * 64


def test_convolutions_alone_are_channels_last_where_one_operand_was():
    net = nn.Conv2d(4, 4, 3)
    for memory, last in ((torch.channels_last, True), (torch.contiguous_format, False)):
        images = torch.randn(2, 4, 8, 8).contiguous(memory_format=memory)
        (kind,) = count(lambda images=images: net(images)).kinds
        seen = []
        kind.function = lambda *args, seen=seen: seen.extend(args[:2])
        kind.alone()()
        assert all(t.is_contiguous(memory_format=memory) for t in seen)
        assert (seen[0].stride(1) == 1) is last


def test_a_step_of_a_stage_is_counted_and_leaves_random_numbers_as_they_were():
    config = resolve_config("dfgan", sets=SMALL)
    before = torch.get_rng_state()
    two, four = (step_operations(config, stage="gan", batch_size=n) for n in (2, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert 1.5 * two < four <= 2 * two
    with pytest.raises(UserError, match="has no stage 'gam'"):
        step_operations(config, stage="gam")


def test_a_step_on_tokens_is_counted_with_the_encoders_own():
    config = resolve_config("dalle", data_needed=False)  # its encoder has no vocabulary yet
    two, four = (step_operations(config, stage="transformer", batch_size=size) for size in (2, 4))
    assert four == 2 * two > 10**9


def test_the_time_alone_counts_all_calls(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("t2i.benchmarks.run.operations.time.perf_counter", lambda: clock[0])
    x = torch.randn(4, 4)
    counted = count(lambda: [x @ x for _ in range(3)])
    (kind,) = counted.kinds

    def product(*_):
        clock[0] += 2.0

    kind.function = product
    assert attainable_seconds(counted, repeats=3) == 6.0
