"""The header and footer of a run file."""

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sampler.checks.verdict import Verdict, exit_code, overall
from sampler.engines.capabilities import layout_of, weights_of
from sampler.run.session import Session
from sampler.runtime import blas
from sampler.version import __version__


def header(session: Session, checks: Mapping[str, str]) -> dict[str, Any]:
    """The header of a run file, with everything needed to repeat the run. checks: what each tests, as a sentence."""
    info = session.engine.info
    oracle, missing = session.oracle
    return {
        "sampler": __version__,
        "matrix": {"name": session.matrix.name, "sha256": session.matrix.checksum, "cells": len(session.matrix.cases)},
        "why": session.matrix.why,
        "checks": dict(checks),
        "seed": session.seed,
        "width": session.matrix.workload.width,
        "engine": {"name": info.name, "version": info.version, "device": info.device, "dtype": info.dtype},
        "engine_name": session.engine_name,
        "weights": {
            "path": str(session.weights) if session.weights else None,
            "sha256": weights_of(session.engine),
            "layout": layout_of(session.engine),
        },
        "oracle": oracle.info.version if oracle else missing,
        "mlx": importlib.metadata.version("mlx"),
        "blas": blas.prepare().name,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def footer(verdicts: Sequence[Verdict], tokens: int, seconds: float) -> dict[str, Any]:
    """The footer of a run file."""
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    return {
        "verdicts": dict(outcomes),
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "outcome": overall(verdicts),
        "exit_code": exit_code(overall(verdicts)),
    }
