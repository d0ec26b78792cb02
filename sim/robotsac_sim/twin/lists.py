"""The parameter lists of the sync and bulk instructions."""

from __future__ import annotations

from typing import NamedTuple


class Request(NamedTuple):
    """One device of a sync or bulk read."""

    id: int
    address: int
    size: int


class Order(NamedTuple):
    """One device of a sync or bulk write."""

    id: int
    address: int
    data: bytes


def sync_reads(params: bytes) -> list[Request]:
    """``addr(2) len(2) id...``; empty when malformed."""
    if len(params) < 5:
        return []
    address, size = _word(params, 0), _word(params, 2)
    return [Request(device_id, address, size) for device_id in params[4:]]


def bulk_reads(params: bytes) -> list[Request]:
    """``[id addr(2) len(2)]...``; empty when malformed or when an id comes twice."""
    if not params or len(params) % 5:
        return []
    requests = [Request(params[at], _word(params, at + 1), _word(params, at + 3)) for at in range(0, len(params), 5)]
    return requests if len({request.id for request in requests}) == len(requests) else []


def sync_writes(params: bytes) -> list[Order]:
    """``addr(2) len(2) [id data]...``; empty when malformed."""
    if len(params) < 4:
        return []
    address, size = _word(params, 0), _word(params, 2)
    stride = size + 1
    if size == 0 or (len(params) - 4) % stride:
        return []
    return [Order(params[at], address, params[at + 1 : at + stride]) for at in range(4, len(params), stride)]


def bulk_writes(params: bytes) -> list[Order]:
    """``[id addr(2) len(2) data]...``; empty when malformed."""
    orders = []
    at = 0
    while at < len(params):
        if at + 5 > len(params):
            return []
        end = at + 5 + _word(params, at + 3)
        if end > len(params):
            return []
        orders.append(Order(params[at], _word(params, at + 1), params[at + 5 : end]))
        at = end
    return orders


def _word(data: bytes, at: int) -> int:
    return data[at] | data[at + 1] << 8
