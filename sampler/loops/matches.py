"""Which tokens equal the one `lag` earlier, for all lags at once, without work for lags that do not match."""

from collections import deque


class LagMatches:
    """The last `compared` tokens against those up to `largest` earlier, as bits.

    A token costs one operation on integers of `compared` bits for each occurrence among the last `largest` tokens, so
    none for a new one and at most `largest`, whatever the length of the run. Memory: `largest` tokens, an integer of
    `largest` bits for each different one, and an integer of `compared` bits for each lag.
    """

    def __init__(self, largest: int, compared: int) -> None:
        self._largest, self._lags, self._kept = largest, (2 << largest) - 2, (1 << compared) - 1
        self._tokens: deque[int] = deque()
        self._places: dict[int, tuple[int, int]] = {}  # token -> step, and bit i for its place i steps before that
        self._bits = [0] * (largest + 1)
        self._steps = [0] * (largest + 1)
        self._step = -1

    def add(self, token: int) -> list[tuple[int, int]]:
        """Lags at which one more token matches, the shortest first, and `at` of each."""
        self._step += 1
        step, places = self._places.get(token, (self._step, 0))
        places = (places << (self._step - step)) & self._lags
        matching = []
        for lag in _bits_of(places):
            self._bits[lag] = bits = self.at(lag) | 1
            self._steps[lag] = self._step
            matching.append((lag, bits))
        self._remember(token, places)
        return matching

    def at(self, lag: int) -> int:
        """Bit i is set if the token i steps ago equalled the one `lag` before it; bits from `compared` on are 0."""
        passed = self._step - self._steps[lag]
        # Without the limit an integer would grow with the length of the run before it is cut.
        return (self._bits[lag] << passed) & self._kept if passed <= self._kept.bit_length() else 0

    def pass_over(self, count: int) -> None:
        """Go on by `count` tokens that leave what is kept as it is."""
        self._step += count
        self._steps = [step + count for step in self._steps]
        self._places = {token: (step + count, places) for token, (step, places) in self._places.items()}

    def _remember(self, token: int, places: int) -> None:
        """Forget a token whose last occurrence is beyond every lag."""
        self._places[token] = self._step, places | 1
        self._tokens.append(token)
        if len(self._tokens) > self._largest:
            gone = self._tokens.popleft()
            if self._places[gone][0] == self._step - self._largest:
                del self._places[gone]


def _bits_of(value: int) -> list[int]:
    """Indices of the set bits, the lowest first."""
    places = []
    while value:
        lowest = value & -value
        places.append(lowest.bit_length() - 1)
        value ^= lowest
    return places
