"""Which BLAS is taken: a setting, the system's OpenBLAS, MKL from PyPI, none; nothing of it may fail."""

import ctypes.util
import subprocess
import sys

import pytest

from sampler.runtime import blas
from tests.commands import ROOT

WITHOUT = ctypes.util.find_library("openblas") is None


def output(program: str, **environment: str) -> str:
    environment |= {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def chosen(setting: str) -> list[str]:
    program = "import sampler.runtime.blas as b; blas = b.prepare(); print(blas.name, blas.hint, blas.threads, sep='|')"
    return output(program, SAMPLER_BLAS=setting, OPENBLAS_NUM_THREADS="1").split("|")


@pytest.mark.skipif(sys.platform == "darwin", reason="Accelerate is taken")
@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("none", "SAMPLER_BLAS=none"),
        ("/nowhere/libfast.so", "/nowhere/libfast.so could not be loaded"),
        ("libc.so.6", "libc.so.6 has no cblas_sgemm"),
    ],
)
def test_a_setting_that_names_no_blas_leaves_the_one_of_mlx(setting, hint):
    name, said, threads = chosen(setting)
    assert (name, threads) == ("bundled with MLX", "1")
    assert said.startswith(hint)


@pytest.mark.skipif(WITHOUT, reason="there is no OpenBLAS on this system")
def test_openblas_says_its_version_and_threads():
    name, said, threads = chosen("")
    assert name.startswith("OpenBLAS ")
    assert "1 thread (" in name
    assert (said, threads) == ("", "1")


@pytest.mark.skipif(WITHOUT, reason="there is no OpenBLAS on this system")
@pytest.mark.parametrize(("given", "found"), [({}, "20"), ({blas.WAITING: "9"}, "9")])
def test_the_threads_of_openblas_do_not_spin_for_long_unless_a_setting_says_so(given, found):
    program = f"import os, sampler.runtime.blas as b; b.prepare(); print(os.environ['{blas.WAITING}'])"
    assert output(program, **given) == found


def test_mkl_is_found_beside_python(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert blas._mkl_of_pypi() is None
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libmkl_rt.so.3").touch()
    assert blas._mkl_of_pypi() == str(tmp_path / "lib" / "libmkl_rt.so.3")
