"""A look into an ONNX file without running or building anything.

onnxruntime is no integrity check: it follows external data, loads custom domains and runs what it is given. Before a
bundle reaches it, this walks the protobuf (onnx.proto, IR version 10) and refuses whatever a policy has no use for. It
reads lengths and short strings only; tensors are skipped, so a 300 kB bundle takes well under a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from robotsac.errors import BundleRejected
from robotsac.policy.bundle import ALLOWED_OPERATORS, METADATA_KEY, ONNX_IR_VERSION, ONNX_OPSET

NODES_MAX = 1000
INITIALIZERS_MAX = 1000
NAME_BYTES_MAX = 1000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1

Field = tuple[int, int | memoryview]


@dataclass(slots=True)
class OnnxSummary:
    """What a bundle file consists of."""

    ir_version: int = 0
    opset: int = 0
    operators: set[str] = field(default_factory=set)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    initializers: int = 0
    metadata: bytes = b""


def scan(data: bytes) -> OnnxSummary:
    """Walk ``data`` and return what is in it.

    Raises:
        BundleRejected: cut short, not ONNX, or with something in it that a policy may not have.
    """
    summary = OnnxSummary()
    graphs = 0
    for number, value in _fields(memoryview(data)):
        if number == 1:
            summary.ir_version = _integer(value)
        elif number == 7:
            graphs += 1
            _scan_graph(_message(value), summary)
        elif number == 8:
            _scan_opset(_message(value), summary)
        elif number == 14:
            _scan_metadata(_message(value), summary)
        elif number in (20, 25):
            raise _refused("training information or local functions")
    if graphs != 1 or summary.opset == 0:
        raise BundleRejected("the file is not an ONNX model", reason=f"{graphs} graphs, opset {summary.opset}")
    if not 1 <= summary.ir_version <= ONNX_IR_VERSION:
        raise _refused(f"IR version {summary.ir_version}, newer than {ONNX_IR_VERSION}")
    if summary.opset > ONNX_OPSET:
        raise _refused(f"opset {summary.opset}, newer than {ONNX_OPSET}")
    if sorted(summary.inputs) != ["noise", "obs"] or summary.outputs != ["action"]:
        raise _refused(f"inputs {summary.inputs} and outputs {summary.outputs}, not obs, noise and action")
    return summary


def _scan_opset(view: memoryview, summary: OnnxSummary) -> None:
    domain, version = "", 0
    for number, value in _fields(view):
        if number == 1:
            domain = _text(value)
        elif number == 2:
            version = _integer(value)
    if domain not in ("", "ai.onnx"):
        raise _refused(f"operator domain {domain!r}")
    summary.opset = version


def _scan_metadata(view: memoryview, summary: OnnxSummary) -> None:
    key, value_view = "", memoryview(b"")
    for number, value in _fields(view):
        if number == 1:
            key = _text(value)
        elif number == 2:
            value_view = _message(value)
    if key == METADATA_KEY:
        summary.metadata = bytes(value_view)


def _scan_graph(view: memoryview, summary: OnnxSummary) -> None:
    nodes = 0
    initializer_names: set[str] = set()
    inputs: list[str] = []
    for number, value in _fields(view):
        if number == 1:
            nodes += 1
            _scan_node(_message(value), summary)
        elif number == 5:
            summary.initializers += 1
            initializer_names.add(_scan_tensor(_message(value)))
        elif number == 11:
            inputs.append(_first_text(_message(value)))
        elif number == 12:
            summary.outputs.append(_first_text(_message(value)))
        elif number == 15:
            raise _refused("a sparse initializer")
        if nodes > NODES_MAX or summary.initializers > INITIALIZERS_MAX:
            raise _refused(f"more than {NODES_MAX} nodes or {INITIALIZERS_MAX} initializers")
    summary.inputs = [name for name in inputs if name not in initializer_names]


def _scan_node(view: memoryview, summary: OnnxSummary) -> None:
    for number, value in _fields(view):
        if number == 4:
            operator = _text(value)
            if operator not in ALLOWED_OPERATORS:
                raise _refused(f"operator {operator!r}")
            summary.operators.add(operator)
        elif number == 5:
            _scan_attribute(_message(value))
        elif number == 7 and _text(value) not in ("", "ai.onnx"):
            raise _refused(f"a node of domain {_text(value)!r}")


def _scan_attribute(view: memoryview) -> None:
    for number, value in _fields(view):
        if number in (6, 11):
            raise _refused("a nested graph")
        if number in (5, 10):
            _scan_tensor(_message(value))


def _scan_tensor(view: memoryview) -> str:
    name = ""
    for number, value in _fields(view):
        if number == 8:
            name = _text(value)
        elif number == 13 or (number == 14 and _integer(value) == _EXTERNAL):
            raise _refused("a tensor with external data")
    return name


def _fields(view: memoryview) -> Iterator[Field]:
    """Protobuf wire format: field number and value, varints as int, length-delimited as a view."""
    position, end = 0, len(view)
    while position < end:
        key, position = _varint(view, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, position = _varint(view, position)
            yield number, value
        elif kind == _BYTES:
            size, position = _varint(view, position)
            if size > end - position:
                raise BundleRejected(
                    "the file is cut short or damaged", reason=f"a field of {size} bytes with {end - position} left"
                )
            yield number, view[position : position + size]
            position += size
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
            if position > end:
                raise BundleRejected("the file is cut short or damaged", reason="a fixed field runs over the end")
        else:
            raise BundleRejected(
                "the file is not an ONNX model", reason=f"it is not in protobuf's format (wire type {kind})"
            )


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            raise BundleRejected("the file is cut short or damaged", reason="a number runs over the end")
        byte = view[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise BundleRejected("the file is not an ONNX model", reason="a number of more than ten bytes")


def _integer(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise BundleRejected("the file is not an ONNX model", reason="bytes where a number belongs")
    return value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise BundleRejected("the file is not an ONNX model", reason="a number where bytes belong")
    return value


def _text(value: int | memoryview) -> str:
    view = _message(value)
    if len(view) > NAME_BYTES_MAX:
        raise _refused(f"a name of {len(view)} bytes")
    return bytes(view).decode("utf-8", errors="replace")


def _first_text(view: memoryview) -> str:
    return next((_text(value) for number, value in _fields(view) if number == 1), "")


def _refused(what: str) -> BundleRejected:
    return BundleRejected(f"the policy file has {what}", reason="a policy may not have that")
