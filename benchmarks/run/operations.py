"""Count the arithmetic of training steps, and measure what a machine reaches with the same.

Convolutions and matrix products are counted, forwards and backwards, and those that a gradient of a
gradient adds (double backward). A multiplication and an addition count as two operations. All other
work (normalisation, activations, optimizers) counts as none.

    from t2i.benchmarks.run.operations import attainable_seconds, count, step_operations
    from t2i.core.engine.trial import training_step
    from t2i.core.runs.configure import resolve_config

    config = resolve_config("dfgan", data_needed=False)
    per_step = step_operations(config, stage="gan")  # an int
    counted = count(training_step(config, stage="gan"))  # or any function
    rate = counted.total / attainable_seconds(counted)  # operations/s of the same sizes alone
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from t2i.core.engine.trial import training_step
from t2i.core.runs.configure import RunConfig

aten = torch.ops.aten

FORMULAS: Mapping[Any, Callable[..., int]] = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}
"""The number of operations of each kind of call, computed from its arguments and output."""


@dataclass(frozen=True)
class Operand:
    """A tensor that a convolution or product gets, without its values.

    Args:
        shape: Its shape.
        strides: Its strides, in elements.
        dtype: Its type.
        device: Its device.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def channels_last(self) -> bool:
        """Whether these are images or kernels whose channels lie side by side in memory."""
        return len(self.shape) == 4 and self.shape[1] > 1 and self.strides[1] == 1

    def made(self, channels_last: bool = False) -> Tensor:
        """Make such a tensor with random values.

        Args:
            channels_last: Whether to order its memory so, where it has four axes.

        Returns:
            The tensor.
        """
        if 0 in self.shape or 0 in self.strides or (channels_last and len(self.shape) == 4):
            made = torch.randn(self.shape, device=self.device).to(self.dtype)
            return made.contiguous(memory_format=torch.channels_last) if channels_last else made
        reach = sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        flat = torch.randn(reach + 1, device=self.device).to(self.dtype)
        return flat.as_strided(self.shape, self.strides)


@dataclass
class Operation:
    """Convolutions or matrix products of the same sizes.

    Args:
        name: Name of the operation in torch, such as "convolution_backward".
        shapes: Shapes of its operands.
        each: Number of arithmetic operations of one of them.
        function: The operation of torch.
        arguments: Its arguments, operands in the places of tensors.
        calls: How often it occurs.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    each: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    calls: int = 1

    @property
    def total(self) -> int:
        """Number of arithmetic operations of all calls."""
        return self.calls * self.each

    def alone(self) -> Callable[[], None]:
        """Prepare the operation alone, on random values.

        Convolutions get all operands channels-last if one of them was, and attention becomes the
        matrix products that it consists of.

        Returns:
            A function that does it once.
        """
        if "scaled_dot_product" in self.name or "attention" in self.name:
            return _attention_products(self)
        leaves, structure = tree_flatten(self.arguments)
        last = any(isinstance(leaf, Operand) and leaf.channels_last for leaf in leaves)
        made = [leaf.made(last) if isinstance(leaf, Operand) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(made, structure)

        def once() -> None:
            self.function(*args, **kwargs)

        return once


@dataclass(frozen=True)
class Operations:
    """The arithmetic of a function.

    Args:
        kinds: Its convolutions and matrix products, those of the most operations first.
    """

    kinds: tuple[Operation, ...]

    @property
    def total(self) -> int:
        """Number of arithmetic operations."""
        return sum(kind.total for kind in self.kinds)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records each convolution and matrix product, those of autograd's backward included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[str, Operation] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self._record(func, args, kwargs, formula(*args, **kwargs, out_val=out))
        return out

    def _record(self, func: Any, args: Any, kwargs: Any, each: int) -> None:
        leaves, structure = tree_flatten((args, kwargs))
        leaves = [_operand(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        arguments = tree_unflatten(leaves, structure)
        key = f"{func}{arguments}"
        if key in self.found:
            self.found[key].calls += 1
            return
        shapes = tuple(leaf.shape for leaf in leaves if isinstance(leaf, Operand))
        self.found[key] = Operation(func._overloadpacket.__name__, shapes, each, func, arguments)


def _operand(tensor: Tensor) -> Operand:
    return Operand(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)


def count(step: Callable[[], object]) -> Operations:
    """Count the arithmetic of one call of a function. The call is made.

    Args:
        step: The function; what it compiles (`torch.compile`) is not counted.

    Returns:
        Its convolutions and matrix products.
    """
    with _Recorder() as recorder:
        step()
    kinds = sorted(recorder.found.values(), key=lambda kind: -kind.total)
    return Operations(tuple(kinds))


def counted_step(
    config: RunConfig, stage: str | None = None, batch_size: int | None = None
) -> Operations:
    """Count the arithmetic of a whole training step of a stage, on a batch in memory.

    The step is made, with fresh weights, and not compiled. Text features are random: the operations
    of a frozen text encoder are not among them.

    Args:
        config: The model's configuration.
        stage: Name of the stage. None: the last.
        batch_size: Images in the batch. None: that of the stage.

    Returns:
        The step's convolutions and matrix products.

    Raises:
        UserError: The model has no such stage, or none at all.
    """
    eager = replace(config, settings=config.settings.with_(compile=False))
    with torch.random.fork_rng():
        return count(training_step(eager, stage=stage, batch_size=batch_size))


def step_operations(
    config: RunConfig, stage: str | None = None, batch_size: int | None = None
) -> int:
    """Count the arithmetic operations of a training step, as `counted_step` does.

    Args:
        config: The model's configuration.
        stage: Name of the stage. None: the last.
        batch_size: Images in the batch. None: that of the stage.

    Returns:
        The number of operations of one step.

    Raises:
        UserError: The model has no such stage, or none at all.
    """
    return counted_step(config, stage, batch_size).total


def attainable_seconds(operations: Operations, repeats: int = 1) -> float:
    """Measure how long the same convolutions and matrix products take alone.

    They run one after the other on operands of the same sizes, precision and order in memory, on
    the same device, with torch's present number of threads.

    Args:
        operations: What was counted.
        repeats: How often each is timed, at least 1; the median counts.

    Returns:
        Seconds for all calls together.
    """
    with torch.no_grad():
        return sum(_seconds(kind, repeats) for kind in operations.kinds)


def _seconds(kind: Operation, repeats: int) -> float:
    """Return the seconds of all calls of one kind; a call before them warms up."""
    once, device = kind.alone(), _device(kind)
    once()
    taken = []
    for _ in range(repeats):
        _wait(device)
        started = time.perf_counter()
        for _ in range(kind.calls):
            once()
        _wait(device)
        taken.append(time.perf_counter() - started)
    return sorted(taken)[len(taken) // 2]


def _wait(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _operands(kind: Operation) -> Iterator[Operand]:
    return (leaf for leaf in tree_flatten(kind.arguments)[0] if isinstance(leaf, Operand))


def _device(kind: Operation) -> torch.device:
    return next(_operands(kind)).device


def _attention_products(kind: Operation) -> Callable[[], None]:
    """Prepare the matrix products of attention: two forwards, five backwards."""
    backward = "backward" in kind.name
    query, key, value = list(_operands(kind))[backward : 3 + backward]
    (batch, heads, queries, width), keys, depth = query.shape, key.shape[2], value.shape[3]

    def made(*shape: int) -> Tensor:
        return torch.randn(batch * heads, *shape, device=query.device).to(query.dtype)

    q, k, v = made(queries, width), made(keys, width), made(keys, depth)
    weights, output = made(queries, keys), made(queries, depth)

    def once() -> None:
        torch.bmm(q, k.mT)
        if not backward:
            torch.bmm(weights, v)
            return
        torch.bmm(output, v.mT)
        torch.bmm(weights.mT, output)
        torch.bmm(weights, k)
        torch.bmm(weights.mT, q)

    return once
