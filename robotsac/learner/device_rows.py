"""Rows of numbers on the learner's device, read and written by their position."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


class DeviceRows:
    """On any device.

    Args:
        tensor: (n, width).
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def take(self, where: Tensor) -> Tensor:
        """The rows whose positions are in ``where``, which may have any shape: (..., width), fresh."""
        return self.tensor.index_select(0, where.reshape(-1)).view(*where.shape, -1)

    def put(self, at: int, rows: NDArray[Any]) -> None:
        """Write ``rows`` (b, width), of the same type, from position ``at`` on."""
        self.tensor[at : at + len(rows)].copy_(torch.from_numpy(rows))


class HostRows(DeviceRows):
    """On the CPU, through numpy: few small rows cost a third less that way."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor)
        self._array = tensor.numpy()

    def take(self, where: Tensor) -> Tensor:
        """See :class:`DeviceRows`."""
        return torch.from_numpy(self._array.take(where.numpy(), axis=0))

    def put(self, at: int, rows: NDArray[Any]) -> None:
        """See :class:`DeviceRows`."""
        self._array[at : at + len(rows)] = rows


def empty_rows(count: int, width: int, dtype: torch.dtype, device: torch.device) -> DeviceRows:
    """Rows that hold anything. Not zeroed: pages that nobody touches cost no memory."""
    tensor = torch.empty(count, width, dtype=dtype, device=device)
    return HostRows(tensor) if tensor.is_cpu else DeviceRows(tensor)
