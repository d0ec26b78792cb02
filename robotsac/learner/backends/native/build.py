"""From the C++ beside this file to a library for this processor; built once, then found in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from robotsac.learner.backends.backend import BackendUnavailable

HERE = Path(__file__).parent
MAIN = "update.cpp"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
THIS_PROCESSOR = ("-march=native", "-mcpu=native")
"""What compilers call it; the second on some ARM machines."""
IN_BFLOAT16, HAS_BFLOAT16 = "-DPRODUCTS_IN_BFLOAT16", b"__AVX512BF16__"
"""What makes products in bfloat16, and what a compiler says of a processor that has them."""
BUILD_TIMEOUT_S, ASK_TIMEOUT_S = 180.0, 15.0
"""One build and three questions together take less than the silence after which a trainer that is loading is taken for hung."""


def library(*, reduced: bool = False) -> ctypes.CDLL:
    """The library, built where it has not been yet: ten to thirty seconds.

    Args:
        reduced: the one whose products are in bfloat16.

    Raises:
        BackendUnavailable: no C++ compiler, or it refuses, or the cache cannot be written; a processor without such products.
    """
    compiler = _compiler()
    flags, macros = _target(compiler)
    if reduced:
        flags = (*flags, IN_BFLOAT16)
        if HAS_BFLOAT16 not in macros:
            raise BackendUnavailable("no products in bfloat16 here", reason=f"{compiler[0]} tells of no AVX-512 BF16")
    digest = hashlib.sha256(macros + repr(flags).encode())
    for path in sorted(HERE.glob("*.[ch]*")):
        digest.update(path.read_bytes())
    source = digest.hexdigest()[:24]
    try:
        return ctypes.CDLL(str(_kept(source) or _built(compiler, flags, source)))
    except OSError as error:
        raise BackendUnavailable("the native update cannot be kept or loaded", reason=str(error)) from error


def has_bfloat16() -> bool:
    """Whether this processor has products in bfloat16, and the compiler knows of them."""
    try:
        return HAS_BFLOAT16 in _target(_compiler())[1]
    except BackendUnavailable:
        return False


def cache_folder() -> Path:
    """Where built libraries lie: ``$XDG_CACHE_HOME/robotsac``, or ``~/.cache/robotsac``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "robotsac"


def _compiler() -> tuple[str, ...]:
    """``$CXX``, which may have words of its own behind or before it ("ccache g++"), or the first that is here."""
    named = os.environ.get("CXX", "").strip()
    try:
        commands = [shlex.split(named)] if named else [[name] for name in COMPILERS]
    except ValueError as error:
        raise BackendUnavailable("the native update needs a C++ compiler", reason=f"CXX={named}: {error}") from error
    for name, *words in commands:
        if found := shutil.which(name):
            return found, *words
    raise BackendUnavailable(
        "the native update needs a C++ compiler",
        reason=f"none of {named or ', '.join(COMPILERS)} is here",
    )


def _name(source: str, content: bytes) -> str:
    return f"update-{source}-{hashlib.sha256(content).hexdigest()[:24]}.so"


def _kept(source: str) -> Path | None:
    """The library that was built of ``source``. One that is not what was written, after a power cut say, is taken away: to
    load it could end the process."""
    for path in sorted(cache_folder().glob(f"update-{source}-*.so")):
        if path.name == _name(source, path.read_bytes()):
            return path
        path.unlink(missing_ok=True)
    return None


def _target(compiler: Sequence[str]) -> tuple[tuple[str, ...], bytes]:
    """The flags for this processor, and all that the compiler says about itself and about it."""
    for flag in (*THIS_PROCESSOR, ""):
        flags = (*FLAGS, flag) if flag else FLAGS
        done = _run((*compiler, *flags, "-x", "c++", "-dM", "-E", os.devnull), ASK_TIMEOUT_S)
        if done.returncode == 0:
            return flags, done.stdout
    raise _refused(compiler, done)


def _built(compiler: Sequence[str], flags: Sequence[str], source: str) -> Path:
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / MAIN
        done = _run((*compiler, *flags, str(HERE / MAIN), "-o", str(made)), BUILD_TIMEOUT_S)
        if done.returncode:
            raise _refused(compiler, done)
        # Whoever builds at the same time builds the same; a half-written file is never seen.
        return made.replace(cache / _name(source, made.read_bytes()))


def _run(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        reason = f"{command[0]} has not ended after {timeout_s:g} s"
        raise BackendUnavailable("the native update could not be built", reason=reason) from error
    except OSError as error:
        raise BackendUnavailable("the native update could not be built", reason=str(error)) from error


def _refused(compiler: Sequence[str], done: subprocess.CompletedProcess[bytes]) -> BackendUnavailable:
    said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    errors = [line for line in said if "error" in line] or said
    return BackendUnavailable("the native update could not be built", reason=f"{compiler[0]}: {errors[0][:200]}")
