"""The C++ update's products of matrices against exact ones (on small whole numbers float32 and bfloat16 make no error), and its
functions against those of float64."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from robotsac.learner.backends.backend import BackendUnavailable
from robotsac.learner.backends.native import build

Floats = NDArray[np.float32]
SIZES = [1, 2, 3, 7, 16, 31, 32, 33, 64, 100]
PANEL_MAX = 32


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "bfloat16"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Built like the update itself."""
    sources = tmp_path_factory.mktemp("native") / "sources"
    shutil.copytree(build.HERE, sources)
    shutil.copy(Path(__file__).with_name("native_arithmetic.cpp"), sources / build.MAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "HERE", sources)
        patch.setenv("XDG_CACHE_HOME", str(sources))
        try:
            return build.library(reduced=request.param)
        except BackendUnavailable as error:
            if not request.param:
                raise
            return pytest.skip(str(error))


def whole(rng: np.random.Generator, *shape: int) -> Floats:
    """Few bits: a bfloat16 has 8."""
    return rng.integers(-100, 101, shape).astype(np.float32)


def pointer(array: Floats) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize("by_rows", [False, True])
def test_a_product_is_exact_whatever_its_sizes(library: ctypes.CDLL, by_rows: bool) -> None:
    rng = np.random.default_rng(0)
    for trial in range(200):
        rows, inner, columns = (int(size) for size in rng.choice(SIZES, 3))
        a, weight = whole(rng, rows, inner), whole(rng, inner, columns)
        stored, got = np.ascontiguousarray(weight.T if by_rows else weight), np.empty((rows, columns), np.float32)
        library.product_of(pointer(a), pointer(stored), rows, inner, columns, by_rows, pointer(got))
        assert (got == a @ weight).all(), (trial, rows, inner, columns)


def test_a_gradient_is_exact_whatever_its_sizes(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(0)
    for trial in range(200):
        rows, columns = (int(size) for size in rng.choice(SIZES, 2))
        samples = int(rng.choice([1, 2, 5, 63, 64, 65, 256, 257, 600]))
        first = PANEL_MAX * int(rng.integers(0, 1 + (rows - 1) // PANEL_MAX))
        end = min(rows, first + PANEL_MAX * int(rng.integers(1, 4)))
        u, v = whole(rng, samples, rows), whole(rng, samples, columns)
        got = np.empty((end - first, columns), np.float32)
        library.gradient_of(pointer(u), pointer(v), samples, rows, columns, first, end, pointer(got))
        assert (got == u[:, first:end].T @ v).all(), (trial, samples, rows, columns, first, end)


def test_what_is_no_number_stays_none(library: ctypes.CDLL) -> None:
    for wrong in (np.nan, np.inf, -np.inf):
        a, weight, got = np.ones((3, 5), np.float32), np.ones((5, 4), np.float32), np.empty((3, 4), np.float32)
        a[1, 2] = wrong
        library.product_of(pointer(a), pointer(weight), 3, 5, 4, False, pointer(got))
        assert np.isfinite(got).all(axis=1).tolist() == [True, False, True]
        assert np.array_equal(got[1], np.full(4, wrong), equal_nan=True)


def functions(library: ctypes.CDLL, x: Floats) -> list[Floats]:
    found = [np.empty_like(x) for _ in range(3)]
    library.functions_of(pointer(x), len(x), *(pointer(each) for each in found))
    return found


def test_functions_are_right_to_two_units_in_the_last_place(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.uniform(-span, span, 64_000) for span in (1e-6, 0.1, 1.0, 10.0, 80.0)]
    edges = [sign * edge for edge in (0.0, 0.3465736, 0.625, 0.8813736) for sign in (1, -1) for _ in range(32)]
    x = np.concatenate([*parts, edges]).astype(np.float32)
    wide = x.astype(np.float64)
    for got, wanted in zip(functions(library, x), (np.exp(wide), np.tanh(wide), np.logaddexp(0.0, wide)), strict=True):
        unit = np.spacing(np.abs(wanted).astype(np.float32))
        assert (np.abs(got - wanted) / unit).max() <= 2.0


def test_functions_end_where_float32_does(library: ctypes.CDLL) -> None:
    x = np.resize(np.array([np.inf, -np.inf, 200.0, -200.0, np.nan], dtype=np.float32), 80)
    exps, tanhs, softpluses = (found[:5] for found in functions(library, x))
    assert exps[[0, 2]].min() > 1e38 and 0.0 <= exps[[1, 3]].max() < 2e-38
    assert tanhs[:4].tolist() == [1.0, -1.0, 1.0, -1.0]
    assert softpluses[0] == np.inf and softpluses[2] == 200.0 and 0.0 <= softpluses[[1, 3]].max() < 2e-38
    assert all(np.isnan(found[4]) for found in (exps, tanhs, softpluses))
