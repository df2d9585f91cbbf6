"""Which BLAS serves MLX: on Linux the wheel brings the slow reference one, so OpenBLAS is loaded first where it exists.

MLX on the CPU calls `cblas_sgemm`; a library that is loaded with global symbols before `mlx.core` answers that call
instead of the wheel's own. On macOS nothing is done: MLX uses Metal and Accelerate.
"""

import ctypes
import ctypes.util
import os
import sys
from dataclasses import dataclass

VARIABLE = "SAMPLER_BLAS"
"""Environment variable: the path of a BLAS library, or `none` for the one that MLX brings."""


@dataclass(frozen=True)
class Blas:
    """name: what answers MLX's matrix products. hint: how to get a faster one, or empty. threads: how many it uses."""

    name: str
    hint: str = ""
    threads: int = 1


_INSTALL = "apt-get install libopenblas0-pthread makes matrix products about 10 times as fast"
_current: Blas | None = None


def prepare() -> Blas:
    """Load a fast BLAS if there is one and `mlx.core` is not loaded yet; never fails. Idempotent."""
    global _current  # noqa: PLW0603 - a process has one BLAS
    if _current is None:
        _current = _choose()
    return _current


def _choose() -> Blas:
    if sys.platform == "darwin":
        return Blas("Accelerate")
    setting = os.environ.get(VARIABLE, "")
    if setting == "none":
        return Blas("bundled with MLX", f"{VARIABLE}=none")
    if "mlx.core" in sys.modules:
        return Blas("bundled with MLX", "import sampler before mlx.core, so that OpenBLAS can be loaded first")
    library = setting or ctypes.util.find_library("openblas")
    if not library:
        return Blas("bundled with MLX", _INSTALL)
    try:
        loaded = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return Blas("bundled with MLX", f"{library} could not be loaded: {error}")
    if not hasattr(loaded, "cblas_sgemm"):
        return Blas("bundled with MLX", f"{library} has no cblas_sgemm")
    return _describe(loaded, library)


def _describe(library: ctypes.CDLL, path: str) -> Blas:
    if not hasattr(library, "openblas_get_config"):
        return Blas(path)
    library.openblas_get_config.restype = ctypes.c_char_p
    version = library.openblas_get_config().decode().split()
    threads = library.openblas_get_num_threads()
    return Blas(f"{' '.join(version[:2])}, {threads} thread{'s' if threads > 1 else ''} ({path})", threads=threads)


def threads() -> int:
    """On how many threads the products of a step run, and so the attention between them."""
    return prepare().threads
