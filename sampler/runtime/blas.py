"""The BLAS of MLX: on Linux the wheel has only the slow reference implementation, so a fast one is loaded first.

It is the system's OpenBLAS, else Intel's MKL from PyPI (`pip install 'sampler-suite[mkl]'`), or the library in a
setting. MLX on the CPU calls `cblas_sgemm`; a library that is loaded with global symbols before `mlx.core` receives
that call instead of the wheel's own. On macOS nothing is needed: MLX uses Metal and Accelerate.
"""

import ctypes
import ctypes.util
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from sampler.errors import ConfigError

VARIABLE = "SAMPLER_BLAS"
"""Environment variable: the path of a BLAS library, or `none` for the one in MLX."""

WAITING = "OPENBLAS_THREAD_TIMEOUT"
"""Environment variable that OpenBLAS reads when it is loaded: how long its idle threads spin, as a power of two."""

WAITING_LOG2_CYCLES = 20
"""A third of a millisecond. The default is tens of them, on cores that the compiled loops need: two generations in
parallel took 13 s with it, and 10 s with this (Finch, 64 slots, 150 tokens)."""


@dataclass(frozen=True)
class Blas:
    """name: the library of MLX's matrix products. hint: how to get a faster one, or empty. threads: how many it uses.

    path, library: the loaded one; None: nothing was loaded, or its threads cannot be set.
    """

    name: str
    hint: str = ""
    threads: int = 1
    path: str = ""
    library: ctypes.CDLL | None = field(default=None, repr=False, compare=False)


SETTERS = ("openblas_set_num_threads", "MKL_Set_Num_Threads")

_INSTALL = (
    "apt-get install libopenblas0-pthread, or pip install 'sampler-suite[mkl]', makes matrix products about 10 times "
    "as fast"
)
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
    library = setting or ctypes.util.find_library("openblas") or _mkl_of_pypi()
    if not library:
        return Blas("bundled with MLX", _INSTALL)
    os.environ.setdefault(WAITING, str(WAITING_LOG2_CYCLES))
    try:
        loaded = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return Blas("bundled with MLX", f"{library} could not be loaded: {error}")
    if not hasattr(loaded, "cblas_sgemm"):
        return Blas("bundled with MLX", f"{library} has no cblas_sgemm")
    return _describe(loaded, library)


def _mkl_of_pypi() -> str | None:
    """The library of PyPI's `mkl`, in the folder of Python's own libraries."""
    return next((str(path) for path in sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*"))), None)


def _describe(library: ctypes.CDLL, path: str) -> Blas:
    if hasattr(library, "openblas_get_config"):
        library.openblas_get_config.restype = ctypes.c_char_p
        version = " ".join(library.openblas_get_config().decode().split()[:2])
        count = int(library.openblas_get_num_threads())
    elif hasattr(library, "MKL_Get_Max_Threads"):
        text = ctypes.create_string_buffer(256)
        library.MKL_Get_Version_String(text, 256)
        version, count = text.value.decode().split(" for ")[0], int(library.MKL_Get_Max_Threads())
    else:
        return Blas(path)
    return Blas(f"{version}, {count} thread{'s' if count > 1 else ''} ({path})", "", count, path, library)


def threads() -> int:
    """The number of threads for the products of a step, and for the attention between them."""
    return prepare().threads


def threads_by_setting() -> int | None:
    """The number of threads, if the environment set it to another value than the default of one per core."""
    blas = prepare()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return None if blas.library is None or blas.threads == cores else blas.threads


def use_threads(count: int) -> None:
    """Set the number of threads for the products of this process. Raises ConfigError if the library cannot."""
    global _current  # noqa: PLW0603 - as above
    before = prepare()
    if before.library is not None:
        next(getattr(before.library, name) for name in SETTERS if hasattr(before.library, name))(count)
        _current = _describe(before.library, before.path)
    if threads() != count:
        raise ConfigError(f"{count} threads", hint=f"{prepare().name} runs on {threads()}; leave --threads out")
