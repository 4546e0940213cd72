"""Share a stage's weights, gradients, optimizers' tensors and averages out over processes (FSDP2).

Each process stores some rows of every trained parameter. Optimizers and averages work on these rows
alone. `torch.distributed.fsdp.fully_shard` gathers the rows of a block just before it computes, and
drops the rows of the others afterwards. What a network has beside its blocks stays whole during a
step, so that a trainer may call any method of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import Optimizer

from t2i.core.engine.blocks import outermost
from t2i.core.engine.wrapping import Share, Wrapped, named
from t2i.core.errors import T2IError


class Sharding:
    """The shared-out networks of a stage.

    The optimizers' parameters are replaced by this process's rows of them. All processes must call
    each method together, except where it says otherwise. Parameters that no optimizer has, scalars,
    and parameters that are not contiguous in memory stay whole.

    Args:
        accelerator: The run's processes.
        modules: The networks, by name.
        optimizers: The optimizers, which have not made a step.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        modules: Mapping[str, nn.Module],
        optimizers: Sequence[Optimizer],
    ) -> None:
        self._accelerator = accelerator
        self._device = accelerator.device
        self._mesh = init_device_mesh(self._device.type, (accelerator.num_processes,))
        networks = {name: m for name, m in outermost(modules).items() if [*m.parameters()]}
        trained = {p for o in optimizers for p in _parameters(o) if p.dim() and p.is_contiguous()}
        originals = named(networks)
        self._wrapped = Wrapped(networks, trained, self._mesh)
        self._shares = self._wrapped.shares
        self._of_rows = {share.rows: share for share in self._shares}
        replaced = {originals[share.name]: share.rows for share in self._shares}
        self._rows_of = {p: s.rows for s in self._shares for p in (s.stored, s.whole)}
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["params"] = [replaced.get(p, p) for p in group["params"]]
        kept = {p for name, p in named(networks).items() if originals[name] not in replaced}
        kept |= {p for o in optimizers for p in _parameters(o) if p not in self._of_rows}
        self._apart = [p for p in kept if p.requires_grad]

    # --- a step -----------------------------------------------------------------------------------

    def of(self, parameter: nn.Parameter) -> nn.Parameter:
        """Return what an optimizer has of a parameter. Processes may call this alone.

        Args:
            parameter: A parameter of a network.

        Returns:
            This process's rows, or the parameter itself if it is not sharded.
        """
        return self._rows_of.get(parameter, parameter)

    def backward(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Run a backward pass, and add the gradients to those of the rows.

        They are averaged over processes. `fully_shard` computes the gradients of all parameters;
        those of others are dropped here.

        Args:
            loss: A scalar.
            parameters: The parameters of the optimizer whose loss it is.
        """
        chosen = set(parameters)
        others = [p for p in self._apart if p not in chosen]
        held = [p.grad for p in others]
        for parameter in others:
            parameter.grad = None
        self._accelerator.backward(loss)
        for parameter, gradient in zip(others, held, strict=True):
            parameter.grad = gradient
        self._collect(chosen)

    def _collect(self, chosen: set[nn.Parameter]) -> None:
        """Move the gradients of a backward pass to the rows."""
        standing = []
        for share in self._shares:
            wanted = share.rows in chosen
            if share.standing and wanted:
                standing.append(share)
            elif share.standing:
                share.whole.grad = None
            else:
                gradient: Any = share.stored.grad
                share.stored.grad = None
                if wanted and gradient is not None:
                    _accumulate(share.rows, gradient.to_local())
                share.present |= wanted and share.touched
            share.touched = False
        self._collect_standing(standing)

    def _collect_standing(self, shares: Sequence[Share]) -> None:
        """Average the gradients of parameters that stay whole during a step; keep the rows."""
        if not shares:
            return
        parts = []
        for share in shares:
            gradient, share.whole.grad = share.whole.grad, None
            share.present |= gradient is not None
            parts.append(torch.zeros_like(share.whole) if gradient is None else gradient)
        flat = self._accelerator.reduce(torch.cat([part.flatten() for part in parts]), "mean")
        mean = flat.split([part.numel() for part in parts])
        for share, part, gradient in zip(shares, parts, mean, strict=True):
            _accumulate(share.rows, self.rows(gradient.view_as(part), share.rows))

    def averaged(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Return a loss averaged over processes, and average what `backward` has not.

        A parameter that has no gradient in any process stays without.

        Args:
            parameters: The optimizer's parameters.
            loss: The loss of this process, a scalar.

        Returns:
            The mean of the losses.
        """
        apart = [p for p in parameters if p not in self._of_rows]
        present = [self._is_present(p) for p in parameters]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in apart]
        flags = torch.tensor(present, dtype=torch.float32, device=loss.device)
        flat = torch.cat([loss.float().view(1), flags, *(p.float().flatten() for p in parts)])
        flat = self._accelerator.reduce(flat, "mean")
        head, *means = flat.split([1 + len(present), *(part.numel() for part in parts)])
        for parameter, part, mean in zip(apart, parts, means, strict=True):
            parameter.grad = mean.view_as(part).to(part.dtype)
        for parameter, found in zip(parameters, head[1:].tolist(), strict=True):
            if not found:
                parameter.grad = None
            if share := self._of_rows.get(parameter):
                share.present = False
        total: Tensor = head[0]
        return total

    def _is_present(self, parameter: nn.Parameter) -> bool:
        share = self._of_rows.get(parameter)
        return parameter.grad is not None if share is None else share.present

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Compute the L2 norm of the gradients of all rows of all processes together.

        Args:
            parameters: The optimizer's parameters; those without a gradient are ignored.

        Returns:
            A scalar.
        """
        rows = [p.grad for p in parameters if p in self._of_rows and p.grad is not None]
        apart = [p.grad for p in parameters if p not in self._of_rows and p.grad is not None]
        square = nn.utils.get_total_norm(rows).to(self._device).square()
        square = self._accelerator.reduce(square, "sum")
        total: Tensor = square + nn.utils.get_total_norm(apart).to(self._device).square()
        return total.sqrt()

    def refresh(self) -> None:
        """Gather the weights that stay whole during a step again, after an update of the rows.

        Raises:
            T2IError: The trainer has changed a weight itself, which would be lost.
        """
        for share in self._shares:
            if share.whole._version != share.version:
                raise T2IError(
                    f"parallel=fsdp: the trainer changes the weights {share.name} itself, "
                    "beside its optimizer: set parallel=data"
                )
        self._wrapped.stand()

    # --- whole tensors ----------------------------------------------------------------------------

    @contextmanager
    def whole(self, keep: bool = False) -> Iterator[None]:
        """Make the networks ordinary ones with all their weights inside the block.

        One process may then compute alone. If the block raises, training cannot go on.

        Args:
            keep: Whether to keep changes of the weights that the block makes in every process.

        Yields:
            Nothing.
        """
        self._wrapped.gather()
        with self._wrapped.unhooked():
            yield
        if keep:
            with torch.no_grad():
                for share in self._shares:
                    share.rows.copy_(self.rows(share.whole.detach(), share.rows))
        self._wrapped.drop()
        self._wrapped.stand()

    def rows(self, whole: Tensor, parameter: nn.Parameter) -> Tensor:
        """Return this process's rows of a tensor. Processes may call this alone.

        Args:
            whole: A tensor of a parameter's shape, the same in every process.
            parameter: What an optimizer has of the parameter.

        Returns:
            The rows; the tensor itself if the parameter is not sharded.
        """
        if parameter not in self._of_rows:
            return whole
        shared = distribute_tensor(
            whole.to(self._device), self._mesh, [Shard(0)], src_data_rank=None
        )
        return shared.to_local()

    def gathered(self, rows: Tensor, parameter: nn.Parameter) -> Tensor:
        """Gather a tensor from the rows of all processes.

        Args:
            rows: This process's rows.
            parameter: What an optimizer has of the parameter.

        Returns:
            The whole tensor in the first process, on the CPU; in others an empty one. The tensor
            itself if the parameter is not sharded.
        """
        share = self._of_rows.get(parameter)
        if share is None:
            return rows
        shape, stride = share.stored.shape, share.stored.stride()
        shared = DTensor.from_local(
            rows.detach(), self._mesh, [Shard(0)], run_check=False, shape=shape, stride=stride
        )
        whole = shared.full_tensor()
        return whole.cpu() if self._accelerator.is_main_process else whole.new_empty(0)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state dict of an optimizer with whole tensors.

        Args:
            optimizer: The optimizer.

        Returns:
            The state dict, complete in the first process.
        """
        state = optimizer.state_dict()
        parameters = _parameters(optimizer)
        return state | {
            "state": {
                index: {
                    key: self.gathered(value, parameters[index])
                    if _like(value, parameters[index].shape)
                    else value
                    for key, value in state["state"][index].items()
                }
                for index in sorted(state["state"])
            }
        }

    def shared_out(self, state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        """Return the state dict of an optimizer with this process's rows of its tensors.

        Processes may call this alone.

        Args:
            state: A state dict with whole tensors.
            optimizer: The optimizer that it is for.

        Returns:
            The state dict, for `load_state_dict`.
        """
        parameters = _parameters(optimizer)
        found: dict[int, dict[str, Any]] = {}
        for index, entries in state["state"].items():
            share = self._of_rows.get(parameters[index])
            found[index] = {
                key: self.rows(value, share.rows)
                if share and _like(value, share.stored.shape)
                else value
                for key, value in entries.items()
            }
        return {**state, "state": found}


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _like(value: object, shape: torch.Size) -> bool:
    """Return whether an entry of an optimizer's state is a tensor of its parameter's shape."""
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape == shape


def _accumulate(rows: nn.Parameter, gradient: Tensor) -> None:
    if rows.grad is None:
        rows.grad = gradient.to(rows.dtype).clone()
    else:
        rows.grad.add_(gradient)
