"""Who stands still: decoding sequences that wait while others are prefilled in steps of their own."""


class Standing:
    """When the decoding sequences of a replica had their last token, as far as they differ.

    All had it in the last step that decoded, but for those whose prefill has ended since.
    """

    def __init__(self) -> None:
        self.decoded_s = 0.0
        self._joined: dict[float, int] = {}

    def join(self, now_s: float) -> None:
        """A prefill has ended with a token."""
        self._joined[now_s] = self._joined.get(now_s, 0) + 1

    def leave(self, last_token_s: float) -> float:
        """A sequence goes that joined at that time; when it had its last token."""
        if self._joined.get(last_token_s):
            self._joined[last_token_s] -= 1
        return max(last_token_s, self.decoded_s)

    def late(self, now_s: float, decoding: int) -> tuple[tuple[float, int], ...]:
        """Decoding goes on: since when those have waited who had no token just now, and how many."""
        joined, self._joined = self._joined, {}
        late = [(since_s, count) for since_s, count in joined.items() if since_s < now_s and count]
        stood = decoding - sum(joined.values())
        if self.decoded_s < now_s and stood:
            late.append((self.decoded_s, stood))
        return tuple(late)
