"""What other processes use of the machine while a side is measured: threads that wait for each other then crawl."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

MOST = 0.2
"""Cores that others may use on average during a measure."""

LEAST = 1.0
"""Seconds that are judged, at least: processor times are counted in hundredths of a second."""

CALM, PATIENCE = 3.0, 60.0
"""Seconds that must be calm before a side begins anew, and for how long that is waited for."""


class DisturbedError(Exception):
    """Others used more than MOST cores during a measure."""


@dataclass
class Others:
    """Counts from one look to the next. own: processor seconds of what is measured, and of who measures it."""

    own: Callable[[], float]
    _last: tuple[float, float, float] = field(init=False)

    def __post_init__(self) -> None:
        self._last = self._now()

    def _now(self) -> tuple[float, float, float]:
        return time.monotonic(), busy(), self.own()

    def cores(self) -> float | None:
        """The cores that others used since the last answer; None if that is not long enough ago."""
        now = self._now()
        passed, used, own = (new - old for new, old in zip(now, self._last, strict=True))
        if passed < LEAST:
            return None
        self._last = now
        return max(0.0, (used - own) / passed)

    def check(self) -> None:
        """Raises DisturbedError where others have been at work since the last check."""
        cores = self.cores()
        if cores is not None and cores > MOST:
            raise DisturbedError(f"others used {cores:.1f} cores meanwhile")


def busy() -> float:
    """Processor seconds of the whole machine, what the host took from it included."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - sum(getattr(times, name, 0.0) for name in ("iowait", "guest", "guest_nice"))


def own() -> float:
    """Of this process, and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def own_and(child: int) -> float:
    """The same with a child that is at work, and with its children."""
    total = own()
    try:
        process = psutil.Process(child)
        for each in (process, *process.children(recursive=True)):
            times = each.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    except psutil.NoSuchProcess:  # it ends while it is looked at, and the next look counts it as ended
        pass
    return total


def wait_for_calm() -> bool:
    """Until nobody else has been at work for CALM seconds; False if PATIENCE is at its end before."""
    end, calm, others = time.monotonic() + PATIENCE, 0.0, Others(own)
    while calm < CALM and time.monotonic() < end:
        time.sleep(LEAST)
        cores = others.cores()
        calm = calm + LEAST if cores is not None and cores <= MOST else 0.0
    return calm >= CALM
