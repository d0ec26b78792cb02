"""Where updates are computed: the device that the configuration names, and the threads that a processor has room for."""

from __future__ import annotations

import torch

from robotsac.errors import ConfigError
from robotsac.process import cores


def resolve_device(name: str) -> torch.device:
    """The device that ``learn.device`` names; ``auto`` is a GPU where there is one.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"learn.device {name!r} cannot be used here",
            reason=str(error).splitlines()[0],
            command="--set learn.device=auto",
        ) from error
    return device


def usable_threads(threads: int) -> int:
    """Of ``learn.threads`` as many as there are cores: threads that wait for each other's core are far slower than fewer."""
    return min(threads, cores())


def prepare_torch(threads: int) -> None:
    """For updates in this process. ``threads``: ``learn.threads``."""
    torch.set_num_threads(usable_threads(threads))
    # Adam's moments of dead units decay into denormals, which cost a hundred times a normal number on a CPU.
    torch.set_flush_denormal(True)
