"""Engines that hang, break or take their process along: each call has an answer, and the next call is asked."""

import os
import time
from functools import partial

import numpy as np
import psutil
import pytest

from sampler import SamplingConfig
from sampler.engines import isolation
from sampler.engines.base import EngineError, EngineInfo
from sampler.engines.calls import Call
from sampler.engines.isolation import Isolated, Local
from sampler.engines.process import Effort
from sampler.errors import MissingPackage, Unsupported

LOGITS = np.array([[0.5, 1.5, -1.0]], dtype=np.float32)


def call(mode: float) -> Call:
    logits = LOGITS.copy()
    logits[0, 0] = mode
    return Call("process", {"logits": logits, "history": [[1, 2]], "config": SamplingConfig(), "uncond_logits": None})


RIGHT, HANGS, RAISES, EXITS, WRITES, GROWS, TEXT, LACKS, SPINS = range(9)


class Fickle:
    """Does what the first logit says."""

    info = EngineInfo("fickle", "1")

    def process(self, logits, history, config):
        mode = int(logits[0, 0])
        if mode == HANGS:
            time.sleep(60)
        while mode == SPINS:
            pass
        if mode == RAISES:
            raise KeyError("no such token")
        if mode == EXITS:
            os._exit(7)
        if mode == WRITES:
            logits[0, 1] = 9
        if mode == GROWS:
            history[0].append(5)
        if mode == LACKS:
            raise Unsupported("this config")
        return "scores" if mode == TEXT else logits


def refuse(error: Exception) -> Fickle:
    raise error


def leave() -> Fickle:
    os._exit(3)


@pytest.fixture(params=["here", "apart"])
def client(request, monkeypatch):
    for name, seconds in (("WARM_UP_TIMEOUT", 1.0), ("FIRST_TIMEOUT", 1.0), ("NEXT_TIMEOUT", 0.5)):
        monkeypatch.setattr(isolation, name, seconds)
    if request.param == "here":
        yield Local(Fickle())
        return
    isolated = Isolated(Fickle)
    yield isolated
    isolated.close()


def test_what_an_engine_does_wrong_is_an_answer(client):
    assert client.offer.info.name == "fickle"
    assert client.offer.methods == {"process"}
    raised = client.ask(call(RAISES))
    assert (raised.failure, raised.value) == ("raised", None)
    assert raised.message.startswith("KeyError: 'no such token' (test_isolation.py, line ")
    given = call(WRITES)
    assert client.ask(given).wrote == ("logits",)
    np.testing.assert_array_equal(given.arguments["logits"], call(WRITES).arguments["logits"])
    assert client.ask(call(GROWS)).wrote == ("history",)
    assert client.ask(call(LACKS)).failure == "unsupported"
    text = client.ask(call(TEXT))
    assert text.failure == "type"
    assert "a str" in text.message
    right = client.ask(call(RIGHT))
    assert (right.failure, right.wrote) == (None, ())
    np.testing.assert_array_equal(right.value, call(RIGHT).arguments["logits"])


def test_a_call_that_hangs_is_stopped_and_the_next_one_is_asked_until_it_always_hangs(client):
    hung = client.ask(call(HANGS))
    assert (hung.failure, hung.message) == ("hung", "no answer within 1 s")
    assert client.ask(call(RIGHT)).failure is None
    assert client.ask(call(HANGS)).message == "no answer within 0.5 s"
    for _ in range(isolation.MOST_HANGS - 2):
        client.ask(call(HANGS))
    start = time.perf_counter()
    refused = client.ask(call(HANGS))
    assert (refused.failure, refused.message) == ("given_up", "not asked any more: 4 calls had no answer")
    assert time.perf_counter() - start < 0.2


def test_a_call_that_works_is_given_its_seconds_of_processor_time():
    spent = iter([5.0, 5.4, 5.8, 6.1])
    effort = Effort(1.0, lambda: next(spent))
    time.sleep(0.01)
    assert [effort.goes_on() for _ in range(3)] == [True, True, False]  # then it has had its second
    waits = Effort(1.0, lambda: 5.0)
    time.sleep(0.01)
    assert not waits.goes_on()


def test_a_call_that_only_computes_is_stopped(client):
    start = time.perf_counter()
    assert client.ask(call(SPINS)).failure == "hung"
    assert time.perf_counter() - start < 20


def test_a_process_that_ends_is_started_again():
    client = Isolated(Fickle)
    died = client.ask(call(EXITS))
    assert (died.failure, died.message) == ("died", "its process ended with exit code 7")
    assert client.ask(call(RIGHT)).failure is None
    client.close()


def test_calls_do_not_read_every_process_of_the_system(monkeypatch):
    """It takes milliseconds, and a check makes thousands of calls."""
    looks = []
    children = psutil.Process.children
    monkeypatch.setattr(
        psutil.Process, "children", lambda *inputs, **more: looks.append(1) or children(*inputs, **more)
    )
    client, start = Isolated(Fickle), time.monotonic()
    for _ in range(50):
        assert client.ask(call(RIGHT)).failure is None
    client.close()
    assert len(looks) <= 2 + time.monotonic() - start


def test_what_loading_raises_is_raised_here():
    with pytest.raises(MissingPackage, match="needs it"):
        Isolated(partial(refuse, MissingPackage("needs it", hint="get it")))
    with pytest.raises(EngineError, match="its process ended with exit code 3"):
        Isolated(leave)
