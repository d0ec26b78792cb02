"""A folder of tensors in safetensors and a manifest in JSON, which holds the tensors' sha256: complete or not there."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import TypeVar

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from robotsac.errors import CheckpointError
from robotsac.learner.durable import write_folder

TENSORS_FILE = "tensors.safetensors"
MANIFEST_FILE = "manifest.json"


class Sealed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every manifest says.

    Args:
        schema: version of its layout.
        tensors_sha256: of the tensor file.
    """

    schema: int
    tensors_sha256: str = ""


SealedT = TypeVar("SealedT", bound=Sealed)


def write_sealed(path: Path, tensors: dict[str, Tensor], manifest: Sealed) -> None:
    """Write both into a new folder ``path``; ``tensors_sha256`` is filled in here. Raises OSError: the disk refused."""
    data = save(tensors)
    manifest = msgspec.structs.replace(manifest, tensors_sha256=hashlib.sha256(data).hexdigest())
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    write_folder(path, {TENSORS_FILE: data, MANIFEST_FILE: text})


def read_sealed(path: Path, kind: type[SealedT], schema: int, without_it: str) -> tuple[SealedT, dict[str, Tensor]]:
    """Both, checked.

    Args:
        path: the folder.
        kind: of the manifest.
        schema: the version that is known.
        without_it: what happens once it is taken away, for an error's words.

    Raises:
        CheckpointError: incomplete, damaged, or of another schema.
    """
    try:
        manifest = msgspec.json.decode((path / MANIFEST_FILE).read_bytes(), type=kind)
        data = (path / TENSORS_FILE).read_bytes()
        if manifest.schema != schema:
            raise ValueError(f"checkpoint schema {manifest.schema} is not {schema}")
        if hashlib.sha256(data).hexdigest() != manifest.tensors_sha256:
            raise ValueError(f"sha256 of {TENSORS_FILE} differs from the manifest's")
        return manifest, load(data)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged",
            reason=f"{error}; {without_it}",
            command=shlex.join(("rm", "-r", str(path))),
        ) from error
