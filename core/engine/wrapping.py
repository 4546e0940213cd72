"""Networks whose weights `fully_shard` shares out over processes, and their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map

from t2i.core.engine.blocks import blocks_of

HOOKS = (
    "_forward_pre_hooks", "_forward_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)  # fmt: skip
"""Attributes of `nn.Module` that hold hooks which `fully_shard` adds to."""


@dataclass(eq=False)
class Share:
    """One parameter and this process's rows of it.

    Args:
        name: Name of the network, and of the parameter in it.
        stored: The parameter between computations: a tensor that is sharded over processes.
        whole: The parameter while its block computes.
        rows: This process's rows, in the memory of `stored`. The optimizer has these.
        standing: Whether it stays whole during a step.
        touched: Whether the last backward pass has reached it in this process.
        present: Whether this process has had a gradient of its own loss since the last update.
        version: Number of in-place changes of `whole` so far.
    """

    name: str
    stored: DTensor
    whole: nn.Parameter
    rows: nn.Parameter
    standing: bool
    touched: bool = False
    present: bool = False
    version: int = 0

    def note(self, parameter: Tensor) -> None:
        """Note that a backward pass has reached the parameter.

        Args:
            parameter: The parameter, as torch's hooks pass it.
        """
        self.touched = True


def named(networks: Mapping[str, nn.Module]) -> dict[str, Any]:
    """List the parameters of networks as they are now.

    Args:
        networks: The networks by name.

    Returns:
        The parameters by full name: sharded ones, or gathered ones.
    """
    return {
        f"{network}.{name}": p
        for network, module in networks.items()
        for name, p in module.named_parameters()
    }


class Wrapped:
    """Networks that are shared out.

    Args:
        networks: The networks by name. They have no part in common.
        trained: The parameters to share out; all others stay whole.
        mesh: The processes.

    Attributes:
        networks: The networks by name.
        blocks: The parts of them that are gathered only while they compute.
        shares: The parameters.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], trained: set[nn.Parameter], mesh: DeviceMesh
    ) -> None:
        self.networks = networks
        every = [module for network in networks.values() for module in network.modules()]
        before = {module: _hooks(module) for module in every}
        originals = named(networks)
        self.blocks = self._wrap(trained, mesh)
        self.shares = self._make_shares(originals, trained)
        self._added = {m: _added(before[m], _hooks(m)) for m in every}

    def _wrap(self, trained: set[nn.Parameter], mesh: DeviceMesh) -> list[FSDPModule]:
        """Shard each network and its blocks; return those that stay sharded during a step."""
        blocks: list[FSDPModule] = []
        for network in self.networks.values():
            ignored = {p for p in network.parameters() if p not in trained}
            chosen = [block for block in blocks_of(network, trained) if block is not network]
            for block in (*chosen, network):
                last = block is network
                block.register_forward_hook(_own_memory)  # runs before the hooks of `fully_shard`
                made = fully_shard(
                    block, mesh=mesh, reshard_after_forward=not last, ignored_params=ignored
                )
                made.set_force_sum_reduction_for_comms(mesh.device_type == "cpu")  # gloo: no mean
            for block in network.modules():
                if isinstance(block, FSDPModule) and block is not network:
                    # Processes may differ in what they use, a caption of their own for example.
                    block.set_reduce_scatter_unused_params(True, recurse=False)
                    blocks.append(block)
            root = _sharded(network)
            root.set_requires_gradient_sync(False, recurse=False)
            root.set_reshard_after_backward(False, recurse=False)
            root._get_fsdp_state()._lazy_init()  # the network is the root, whatever is called first
        return blocks

    def _make_shares(
        self, originals: Mapping[str, nn.Parameter], trained: set[nn.Parameter]
    ) -> list[Share]:
        stored = named(self.networks)
        inside = {p for block in self.blocks for p in _own(block)}
        for module in (*self.blocks, *self.roots):
            module.unshard()
        whole = named(self.networks)
        shares = []
        for name, tensor in stored.items():
            if originals[name] in trained:
                rows = nn.Parameter(tensor.detach().to_local(), requires_grad=tensor.requires_grad)
                share = Share(name, tensor, whole[name], rows, standing=tensor not in inside)
                shares.append(share)
                if not share.standing:
                    whole_one: Any = share.whole  # torch leaves this method untyped
                    whole_one.register_post_accumulate_grad_hook(share.note)
        for block in self.blocks:
            block.reshard()
        for share in shares:
            share.version = share.whole._version
        return shares

    @property
    def roots(self) -> list[FSDPModule]:
        """The networks, whose weights outside of blocks stay whole during a step."""
        return [_sharded(network) for network in self.networks.values()]

    # --- gathering and dropping -------------------------------------------------------------------

    def gather(self) -> None:
        """Gather the present weights of everything. All processes must call this together."""
        self.drop()
        for module in (*self.roots, *self.blocks):
            module.unshard()

    def drop(self) -> None:
        """Drop all weights but this process's rows. Processes may call this alone."""
        for module in (*self.roots, *self.blocks):
            module.reshard()

    def stand(self) -> None:
        """Gather the present weights outside of blocks. All processes must call this together."""
        for root in self.roots:
            root.reshard()
            root.unshard()
        for share in self.shares:
            share.version = share.whole._version

    @contextmanager
    def unhooked(self) -> Iterator[None]:
        """Take the hooks of `fully_shard` away inside the block.

        Yields:
            Nothing.
        """
        hooks = {module: _hooks(module) for module in self._added}
        for module, added in self._added.items():
            for name in HOOKS:
                for key in added[name]:
                    getattr(module, name).pop(key)
        yield
        for module, entries in hooks.items():
            for name in HOOKS:
                present = getattr(module, name)
                present.clear()
                present.update(entries[name])


def _own_memory(_: nn.Module, __: Any, output: Any) -> Any:
    """Copy outputs that are views.

    An in-place operation on a view would drop the hook that gathers the weights for the backward
    pass.
    """
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) and x._is_view() else x, output)


def _sharded(module: nn.Module) -> FSDPModule:
    assert isinstance(module, FSDPModule)
    return module


def _own(block: FSDPModule) -> Iterator[nn.Parameter]:
    """List the parameters of a block. No block is inside another."""
    assert isinstance(block, nn.Module)
    return block.parameters()


def _hooks(module: nn.Module) -> dict[str, dict[int, Any]]:
    """Return the hooks of a module as they are now, by the name of the attribute."""
    return {name: dict(getattr(module, name)) for name in HOOKS}


def _added(
    before: Mapping[str, Mapping[int, Any]], now: Mapping[str, Mapping[int, Any]]
) -> dict[str, list[int]]:
    return {name: [key for key in now[name] if key not in before[name]] for name in HOOKS}
