"""Finch with noise of its own, and one parameter that is not the one it was asked for; the records are right."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from sampler.config import SamplingConfig
from sampler.requests import Noise, Request

from .repeating import SIZE, Asking, of
from .repeating import asking as asking_by_width
from .speakers import BOS, Speaker
from .tables import put_into

EOS = 2_049
OWN_NOISE: dict[str, Any] = {}
STAGES: dict[str, str] = {}
"""The stage that is to be named for each wrong one."""

asking = partial(asking_by_width, width=16)

UNNAMED = frozenset({"own_penalty_on_the_prompt"})
"""Wrong ones whose cause cannot be named: the suite does not know which ids the prompt of an engine has."""


def with_config(change: Callable[[SamplingConfig], SamplingConfig]) -> Asking:
    return asking(lambda requests: [of(replace(one, config=change(one.config))) for one in requests])


def with_values(**values: Any) -> Asking:
    return with_config(lambda config: replace(config, **values))


def tempered(factor: float) -> Asking:
    return with_config(lambda config: replace(config, temperature=factor * config.temperature))


def with_noise(noise: Callable[[Request], Noise]) -> Asking:
    return asking(lambda requests: [replace(one, noise=noise(one)) for one in requests])


def of_generator(make: Callable[[int], Any]) -> Callable[[Request], Noise]:
    """Gumbel noise as minus the logarithm of exponential numbers of a generator of another kind."""
    return lambda request: (
        lambda step: (
            -np.log(np.maximum(make((request.seed * 1_000 + step) % 2**32).exponential(size=SIZE), 1e-30)).astype(
                np.float32
            )
        )
    )


def of_python(request: Request) -> Noise:
    def noise(step: int) -> np.ndarray:
        generator = random.Random(request.seed * 1_000 + step)
        return -np.log([generator.expovariate(1.0) + 1e-30 for _ in range(SIZE)]).astype(np.float32)

    return noise


def sometimes_best(request: Request) -> Noise:
    own = of(request).noise
    return lambda step: own(step) * (np.random.default_rng([request.seed, step]).random() >= 0.1)


def of_two_steps(request: Request) -> Noise:
    own = of(request).noise
    return lambda step: own(step % 2)


def with_eos(by: float) -> Callable[[Request], Noise]:
    """EOS is lifted where the token is drawn, among those that the chain has kept."""
    lift = (by * (np.arange(SIZE) == EOS)).astype(np.float32)
    return lambda request: lambda step: of(request).noise(step) + lift


class PenalisesThePrompt(Speaker):
    """Its tokens are those of the text."""

    def process(self, logits, history, config, uncond_logits=None) -> np.ndarray:
        return super().process(logits, [[*self.heard, *row] for row in history], config)

    def speak(self, request: Request):
        object.__setattr__(self, "heard", sorted({ord(letter) % BOS for letter in str(request.prompt)[:8]}))
        return super().speak(request)


put = partial(put_into, OWN_NOISE, STAGES)

put(
    "temperature",
    "own_half_temperature: the temperature is half the one that was asked for [T03].",
    lambda: tempered(0.5),
    "own_higher_temperature: the temperature is one and a half times the one that was asked for [T03].",
    lambda: tempered(1.5),
    "own_warmer: the temperature is 1.25 times the one that was asked for [T03].",
    lambda: tempered(1.25),
    "own_colder: the temperature is 0.8 times the one that was asked for [T03].",
    lambda: tempered(0.8),
)
put(
    "repetition_penalty",
    "own_no_penalty: the penalty is accepted and ignored [P04].",
    lambda: with_values(repetition_penalty=1.0),
    "own_stronger_penalty: the penalty is 1.5 [P04].",
    lambda: with_values(repetition_penalty=1.5),
    "own_penalty_twice: the penalty is applied twice [P04].",
    lambda: with_config(lambda config: replace(config, repetition_penalty=config.repetition_penalty**2)),
    "own_weaker_penalty: the penalty is 1.05 [P04].",
    lambda: with_values(repetition_penalty=1.05),
)
put(
    "stop",
    "own_eos_lifted: EOS is lifted by 2 nats [E02].",
    lambda: with_values(logit_bias={EOS: 2.0}),
    "own_eos_lowered: EOS is lowered by 2 nats [E04].",
    lambda: with_values(logit_bias={EOS: -2.0}),
    "own_eos_forbidden: EOS can't be drawn [E04].",
    lambda: with_values(logit_bias={EOS: -1e4}),
    "own_eos_lifted_at_the_draw: EOS is lifted by 2 nats after the filters [E02].",
    lambda: with_noise(with_eos(2.0)),
    "own_eos_lowered_at_the_draw: EOS is lowered by 2 nats after the filters [E04].",
    lambda: with_noise(with_eos(-2.0)),
)
put(
    "top_p",
    "own_lower_top_p: top_p is 0.5 [N01].",
    lambda: with_values(top_p=0.5),
    "own_no_top_p: top_p is accepted and ignored [N01].",
    lambda: with_values(top_p=1.0),
)
put(
    "draw",
    "own_greedy: at any temperature the likeliest token comes out [T05].",
    lambda: tempered(0.01),
    "own_sometimes_greedy: one token in ten is the likeliest one [T05].",
    lambda: with_noise(sometimes_best),
    "own_noise_of_the_first_step: every step draws with the noise of the first one [R01].",
    lambda: with_noise(lambda request: lambda step: of(request).noise(0)),
    "own_noise_of_two_steps: the noise of the first two steps comes again and again [R01].",
    lambda: with_noise(of_two_steps),
    "own_penalty_on_the_prompt: the tokens of the prompt are penalised as well [P07].",
    lambda: PenalisesThePrompt(own_noise=True),
)
put("min_p", "own_no_min_p: min_p is accepted and ignored [P05].", lambda: with_values(min_p=0.0))
put(
    "cfg",
    "own_weak_guidance: the weight of guidance is a fiftieth of the one that was asked for [C02].",
    lambda: with_config(lambda config: replace(config, cfg_weight=config.cfg_weight / 50)),
    "own_stronger_guidance: the weight of guidance is 2 [C02].",
    lambda: with_values(cfg_weight=2.0),
)
put(
    "",
    "right_exponential_race: noise is an exponential race of PCG64.",
    lambda: with_noise(of_generator(np.random.default_rng)),
    "right_mersenne_twister: noise comes from the Mersenne Twister of NumPy.",
    lambda: with_noise(of_generator(np.random.RandomState)),
    "right_sfc64: noise comes from SFC64.",
    lambda: with_noise(of_generator(lambda seed: np.random.Generator(np.random.SFC64(seed)))),
    "right_python_random: noise comes from the random of Python.",
    lambda: with_noise(of_python),
    "right_speaker: a small law, noise of NumPy's Gumbel generator.",
    lambda: Speaker(own_noise=True),
)
