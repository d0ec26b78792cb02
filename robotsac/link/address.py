"""The learner's address: what is taken, and in which words the rest is refused."""

from __future__ import annotations

import re

from robotsac.errors import LinkError

IPC_PATH_MAX = 100
PORT_MAX = 65535
USUAL_HOST, USUAL_PORT = "127.0.0.1", "5757"
_HOST = r"127\.\d{1,3}\.\d{1,3}\.\d{1,3}|localhost|\[::1\]"
_TAKEN = re.compile(rf"tcp://({_HOST}):(\d{{1,5}})", re.ASCII)
_ANY = re.compile(r"(?:tcp://)?(\[[^\]]*\]|[^:]*)(?::(.*))?", re.DOTALL)


def endpoint(address: str) -> str:
    """What ZeroMQ is given for ``address``.

    Raises:
        LinkError: not an address of this host. Nothing leaves the host until it is encrypted. Its command is
            ``--set link.address=`` and the address that is taken and meant most likely.
    """
    if address.startswith("ipc://") and 0 < len(address) - len("ipc://") <= IPC_PATH_MAX and "\0" not in address:
        return address
    match = _TAKEN.fullmatch(address)
    if match is None or not _is_here(match[1]) or not 0 < int(match[2]) <= PORT_MAX:
        raise _refusal(address)
    # A name could resolve to another address than the one the other end means.
    return address.replace("localhost", USUAL_HOST)


def _refusal(address: str) -> LinkError:
    """Which part of ``address`` is not taken, and the nearest address that is."""
    scheme, separator, _ = address.partition("://")
    host = port = ""
    if separator and scheme == "ipc":
        reason = f"the path after ipc:// must have 1 to {IPC_PATH_MAX} characters"
    elif separator and scheme != "tcp":
        reason = f"it begins with {scheme}://, and only tcp:// and ipc:// are taken"
    else:
        match = _ANY.fullmatch(address)
        host, port = (match[1], match[2] or "") if match else ("", "")
        reason = _host_objection(host) or _port_objection(port) or "it does not begin with tcp:// or ipc://"
    here = host if _is_here(host) else USUAL_HOST
    free = port if not _port_objection(port) else USUAL_PORT
    return LinkError(
        f"link.address {address} is refused", reason=reason, command=f"--set link.address=tcp://{here}:{free}"
    )


def _host_objection(host: str) -> str:
    if not host:
        return "it names no host"
    if _is_here(host):
        return ""
    return (
        f"{host} is not this computer, and the link is not encrypted yet (no CURVE): only 127.0.0.1, localhost and [::1] "
        "are taken; an ssh tunnel leads to another host"
    )


def _port_objection(port: str) -> str:
    if not port:
        return "it names no port"
    if not (port.isascii() and port.isdecimal()):
        return f"its port {port!r} is not a number"
    fits = len(port) <= len(str(PORT_MAX)) and 0 < int(port) <= PORT_MAX
    return "" if fits else f"its port {port} is out of range, ports go from 1 to {PORT_MAX}"


def _is_here(host: str) -> bool:
    whole = re.fullmatch(_HOST, host, re.ASCII) is not None
    return whole and all(int(part) < 256 for part in re.findall(r"\d+", host))
