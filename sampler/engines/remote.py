"""An engine in a process of its own that is used like one in this process."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines.base import Engine, EngineInfo
from sampler.engines.calls import Answer, Call, EngineClient, OnStep, ignore_step, raise_refusal
from sampler.engines.isolation import Isolated, error_of
from sampler.engines.limits import Limits
from sampler.errors import EngineFailure
from sampler.requests import Context, Generation, Logits, Request


class RemoteEngine:
    """What the engine offers, each method as a call to its process. Raises EngineFailure for what it does wrong.

    Made by `load`, of a class that has the methods of the engine, so that `capabilities` and the protocols find them.
    """

    def __init__(self, client: EngineClient, variant: str = "", records: tuple[bool, bool] | None = None) -> None:
        self._client, self._variant, self._records = client, variant, records
        offer = client.offer
        self.width, self.bitwise, self.weights_checksum = offer.width, offer.bitwise, offer.weights_checksum
        self.records_attention, self.contexts = offer.records_attention, offer.contexts

    @classmethod
    def load(cls, load: Callable[[], Engine], limits: Limits) -> "RemoteEngine":
        """Start a process and load the engine there. Raises what `load` raises if it is a SamplerError."""
        return cls.behind(Isolated(load, limits))

    @classmethod
    def behind(cls, client: EngineClient) -> "RemoteEngine":
        """The engine behind a client that is there already."""
        return _class_with(client.offer.methods | client.offer.further)(client)

    @property
    def info(self) -> EngineInfo:
        return self._client.offer.info

    def close(self) -> None:
        """End its process and all its children, if it has one; a further call starts it again."""
        if isinstance(self._client, Isolated):
            self._client.close()

    def _process(
        self,
        logits: Logits,
        history: Sequence[Sequence[int]],
        config: SamplingConfig,
        uncond_logits: Logits | None = None,
        context: Context | None = None,
    ) -> NDArray[Any]:
        given = {"logits": logits, "history": history, "config": config, "uncond_logits": uncond_logits}
        return self._array(Call("process", given, context))

    def _draw(
        self,
        logits: Logits,
        history: Sequence[int],
        config: SamplingConfig,
        n: int,
        seed: int,
        uncond_logits: Logits | None = None,
        context: Context | None = None,
    ) -> NDArray[Any]:
        given = {"logits": logits, "history": history, "config": config, "n": n, "seed": seed}
        return self._array(Call("draw", {**given, "uncond_logits": uncond_logits}, context))

    def _pick(self, scores: Logits, gumbel: Logits) -> NDArray[Any]:
        return self._array(Call("pick", {"scores": scores, "gumbel": gumbel}))

    def _predict(self, prompt: str | tuple[int, ...], tokens: Sequence[int], language: str = "en") -> NDArray[Any]:
        return self._array(self._set(Call("predict", {"prompt": prompt, "tokens": tokens, "language": language})))

    def _generate(self, requests: Sequence[Request], on_step: OnStep = ignore_step) -> list[Generation]:
        return list(self._ask(self._set(Call("generate", {"requests": requests})), on_step).generations)

    def _validate(self, requests: Sequence[Request], processes: int) -> None:
        self._ask(self._set(Call("validate", {"requests": requests, "processes": processes})))

    def _pieces(self, request: Request) -> tuple[str, ...]:
        return self._ask(self._set(Call("pieces", {"request": request}))).pieces

    def _following(self, variant: str) -> "RemoteEngine":
        return type(self)(self._client, variant, self._records)

    def _recording(self, *, logits: bool, attention: bool) -> "RemoteEngine":
        return type(self)(self._client, self._variant, (logits, attention))

    def _set(self, call: Call) -> Call:
        return replace(call, variant=self._variant, records=self._records)

    def _array(self, call: Call) -> NDArray[Any]:
        """The answer as an array; an argument into which the engine wrote is lost here too, so that it shows."""
        answer = self._ask(call)
        for name in answer.wrote:
            written = call.arguments.get(name)
            if isinstance(written, np.ndarray):
                written.fill(np.nan)
        assert answer.value is not None  # noqa: S101 - no failure
        return answer.value

    def _ask(self, call: Call, on_step: OnStep = ignore_step) -> Answer:
        answer = self._client.ask(call, on_step)
        raise_refusal(answer)
        if answer.failure == "invalid":
            raise error_of(answer.error[0], answer.message, answer.error[1])
        if answer.failure is not None:
            raise EngineFailure(answer.message)
        return answer


@functools.cache
def _class_with(names: frozenset[str]) -> type[RemoteEngine]:
    return type("RemoteEngine", (RemoteEngine,), {name: getattr(RemoteEngine, f"_{name}") for name in names})
