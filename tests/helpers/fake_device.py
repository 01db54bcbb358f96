"""A device other than the CPU, for machines that have none. It rejects what a GPU rejects.

Its tensors are stored and computed on the CPU, but report another device. An operation on tensors
of both devices raises, as it does with a GPU, so code that passes here places every tensor
correctly. Speed, mixed precision, and kernels are not imitated.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule as DummyBackend
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as register

NAME = "elsewhere"


class Backend(DummyBackend):
    """What torch requires of a device module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def manual_seed(self, seed: int) -> None:
        """There is no generator to seed."""


class Elsewhere(torch.Tensor):
    """A tensor of the other device; `here` is the CPU tensor with its values."""

    here: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> "Elsewhere":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=torch.device(NAME, 0),
        )
        tensor.here = here
        return tensor

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.here!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        memo[id(self)] = copied
        return copied

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: Any) -> Any:
    """Run one operation, after a check of the devices of its tensors."""
    name = func.overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    away = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    # A GPU accepts numbers and indices from the host as well
    mine = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.ndim]
    indices = name.startswith(("index", "_index_put")) and isinstance(args[0], Elsewhere)
    if indices:
        mine = [tensor for tensor in mine if tensor.is_floating_point()]
    if away and mine and name not in ("copy_", "_to_copy"):
        places = [(str(tensor.device), tuple(tensor.shape)) for tensor in tensors]
        raise RuntimeError(f"{func}: tensors on two devices: {places}")
    device = kwargs.get("device")
    if device is not None:
        goes_away = torch.device(device).type == NAME
        kwargs = kwargs | {"device": torch.device("cpu")}
    else:
        goes_away = isinstance(args[0], Elsewhere) if name == "copy_" else bool(away)
    owners = {id(tensor.here): tensor for tensor in away}  # of tensors changed in place

    def wrapped(result: Any) -> Any:
        if not isinstance(result, torch.Tensor):
            return result
        known = owners.get(id(result))
        if known is not None:
            return known
        return Elsewhere(result) if goes_away else result

    def unwrapped(value: Any) -> Any:
        return value.here if isinstance(value, Elsewhere) else value

    return tree_map(wrapped, func(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs)))


class OtherDevice(TorchDispatchMode):
    """Handles operations that create tensors from none."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class Numbers(TorchFunctionMode):
    """Handles functions whose C++ code would access the memory of the device directly."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if isinstance(first, Elsewhere):
            if func is torch.Tensor.numpy:
                raise TypeError(
                    "numpy cannot read a tensor of another device. Copy it with .cpu() first"
                )
            if func is torch.Tensor.new_tensor:
                return torch.tensor(args[1], dtype=first.dtype).to(first.device)
            if func is torch.Tensor.tolist:
                args = (first.cpu(),)
            if func is torch.Tensor.__getitem__ and isinstance(args[1], list):
                args = (first, torch.tensor(args[1]))
        return func(*args, **kwargs)


class OtherAccelerator(CPUAccelerator):
    """Lets Lightning use an unknown device."""

    def setup_device(self, device: torch.device) -> None:
        pass


@contextmanager
def elsewhere() -> Iterator[SingleDeviceStrategy]:
    """Provide the other device within a `with` block, as a strategy for a Trainer."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        register(NAME, Backend())
    with OtherDevice(), Numbers():
        yield SingleDeviceStrategy(torch.device(NAME, 0), OtherAccelerator())
