"""The engine, the matrix and the seed of one run, and its requests."""

import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from sampler.chain.noise import NoiseKey, RequestNoise
from sampler.engines import capabilities
from sampler.engines.base import Engine
from sampler.engines.calls import OnStep, ignore_step
from sampler.engines.huggingface.chain import HuggingFaceEngine
from sampler.engines.limits import DEFAULT_LIMITS, Limits
from sampler.engines.load import load_engine
from sampler.engines.registry import CORES, known_engines
from sampler.engines.remote import RemoteEngine
from sampler.errors import EngineFailure, MatrixError, MissingPackage, SamplerError, Unsupported
from sampler.matrix.matrix import Case, Matrix, is_shipped
from sampler.requests import Generation, Request
from sampler.run.blocks import slots_of
from sampler.run.prompts import prompts_of
from sampler.runtime import blas


@dataclass(frozen=True)
class Session:
    """The engine, matrix and seed of one run. engine_name: None is the core; weights: its folder, None is Finch.

    limits: of an engine that this package does not ship, which runs in a process of its own.
    """

    matrix: Matrix
    seed: int = 0
    engine_name: str | None = None
    weights: Path | None = None
    limits: Limits = DEFAULT_LIMITS

    @property
    def engine(self) -> Engine:
        """The engine, loaded once. Raises what loading it raised, each time."""
        if isinstance(self._loaded, SamplerError):
            raise self._loaded
        return self._loaded

    @cached_property
    def _loaded(self) -> Engine | SamplerError:
        name = self.engine_name or "core"
        if self.weights is not None and name not in CORES:
            raise MatrixError(
                f"--weights goes with the core, not with {self.engine_name!r}", hint="leave one of them out"
            )
        try:
            return self._load(name)
        except SamplerError as error:
            return error

    def _load(self, name: str) -> Engine:
        known = known_engines(self.weights, self.matrix.workload.width)
        if name not in known and ":" in name:
            return RemoteEngine.load(partial(load_engine, name, {}), self.limits)
        if self.limits.options:
            hint = "engines of this package run in this process; leave it out"
            raise MatrixError(f"{self.limits.options[0]} goes with an engine of your own, not with {name}", hint=hint)
        return load_engine(name, known)

    def close(self) -> None:
        """End the process of the engine, if it has one."""
        loaded = self.__dict__.get("_loaded")
        if isinstance(loaded, RemoteEngine):
            loaded.close()

    @cached_property
    def oracle(self) -> tuple[Engine | None, str]:
        """HuggingFace's processors, or None and why they are missing."""
        try:
            return HuggingFaceEngine(), ""
        except MissingPackage as error:
            return None, str(error)

    def validate(self, cases: Iterable[Case], processes: int = 1) -> None:
        """Raise what is wrong with the requests of some cells: an empty or too long text, a cap beyond model or memory.

        processes: how many generate blocks at the same time. Unsupported features, and an engine that breaks here, are
        left to the verdicts.
        """
        for case in cases:
            with suppress(Unsupported, EngineFailure):
                engine = self.engine_for(case)
                if self.matrix.longform is not None:
                    engine = capabilities.recording(engine, logits=False, attention=True)
                capabilities.validate(engine, self.requests(case), processes)

    def requests(self, case: Case) -> list[Request]:
        """The requests of a cell, with the suite's noise. Raises Unsupported if the engine lacks its config."""
        prompts = [prompt for prompt in prompts_of(case.workload) for _ in range(case.workload.runs)]
        return self.requests_of(
            [(prompt.id, NoiseKey(self.seed, case.id, index)) for index, prompt in enumerate(prompts)], case
        )

    def requests_of(self, runs: Iterable[tuple[str, NoiseKey]], case: Case, first: int = 0) -> list[Request]:
        """Requests for prompts of a cell, by their ids, each with the noise of a key; first: number of the first one.

        Their config has an order that the engine supports. Raises Unsupported if it supports none.
        """
        info, prompts, runs = self.engine.info, {prompt.id: prompt for prompt in prompts_of(case.workload)}, list(runs)
        config, cap = capabilities.offered(info, case.config), case.workload.max_new_tokens
        width = capabilities.slots_of(self.engine)
        slots: Sequence[int | None] = [None] * len(runs)
        if width is not None:
            slots = slots_of(self.matrix.cases, case, len(runs), width, first)
        requests = []
        for (name, key), slot in zip(runs, slots, strict=True):
            prompt = prompts[name]
            own = int(key.words()[0] >> 1)  # for engines with their own generator
            request = Request(prompt.text, config, own, cap, None, prompt.language, slot)
            requests.append(self.with_noise(request, key))
        return requests

    def with_noise(self, request: Request, key: NoiseKey) -> Request:
        """The request with the noise and the uniform numbers of a key."""
        size = self.engine.info.vocab_size
        return replace(request, noise=None if size is None else RequestNoise(key, size), uniform=key.uniform)

    def other_key(self, case: Case) -> NoiseKey:
        """Noise that none of a cell's requests uses."""
        return NoiseKey(self.seed, f"{case.id}/other", 0)

    def ignores_noise(self, case: Case, request: Request, tokens: Sequence[int], on_step: OnStep = ignore_step) -> bool:
        """Whether the engine draws with noise of its own: other noise changes no token of a run, or a repeat does."""
        other = replace(self.with_noise(request, self.other_key(case)), uniform=request.uniform)
        noisy, again = (self.answers(case, [one], on_step)[0].tokens for one in (other, request))
        return noisy == tuple(tokens) or again != tuple(tokens)

    def engine_for(self, case: Case) -> Engine:
        """The engine with the rules of a cell. Raises Unsupported if it cannot follow the variant."""
        return capabilities.following(self.engine, case.variant, self.matrix.base_variant)

    def answers(self, case: Case, requests: Sequence[Request], on_step: OnStep) -> list[Generation]:
        """The engine's generations for a long-form cell, with attention if it can record it, without logits."""
        engine = capabilities.recording(self.engine_for(case), logits=False, attention=True)
        return capabilities.generate(engine, requests, on_step)

    def reproduce(self, case_id: str) -> str:
        """The shell command that reproduces one verdict."""
        parts = ["sampler", "replay", case_id, "--seed", str(self.seed)]
        if self.engine_name:
            parts += ["--engine", self.engine_name]
        if self.weights:
            parts += ["--weights", str(self.weights)]
        parts += self.limits.options
        if not is_shipped(self.matrix):
            parts += ["--matrix", str(self.matrix.path)]
        threads = blas.threads_by_setting()
        if threads is not None and (self.engine_name is None or self.engine_name in CORES):
            parts += ["--threads", str(threads)]
        return shlex.join(parts)
