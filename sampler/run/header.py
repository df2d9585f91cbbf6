"""What a run file says first and last."""

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sampler.checks.verdict import Verdict
from sampler.engines.core import CoreEngine
from sampler.run.session import Session
from sampler.runtime import blas
from sampler.version import __version__


def header(session: Session) -> dict[str, Any]:
    """What a run file says first: enough to run it again elsewhere."""
    info = session.engine.info
    oracle, missing = session.oracle
    weights = session.engine.generator.checkpoint.checksum if isinstance(session.engine, CoreEngine) else None
    return {
        "sampler": __version__,
        "matrix": {"name": session.matrix.name, "sha256": session.matrix.checksum, "cells": len(session.matrix.cases)},
        "seed": session.seed,
        "width": session.matrix.workload.width,
        "engine": {"name": info.name, "version": info.version, "device": info.device, "dtype": info.dtype},
        "engine_name": session.engine_name,
        "weights": {"path": str(session.weights) if session.weights else None, "sha256": weights},
        "oracle": oracle.info.version if oracle else missing,
        "mlx": importlib.metadata.version("mlx"),
        "blas": blas.prepare().name,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def footer(verdicts: Sequence[Verdict], tokens: int, seconds: float) -> dict[str, Any]:
    """What a run file says last."""
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    return {
        "verdicts": dict(outcomes),
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "exit_code": exit_code(verdicts),
    }


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """0 agrees, 1 disagrees or errored, 3 where nothing but unavailable came out."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if outcomes & {"failed", "errored"}:
        return 1
    return 0 if "passed" in outcomes else 3
