"""SGLang's way to fill a KV pool: admit by an estimate of what is still to come, retract when the estimate was low.

Each running request is expected to ask for a share of the tokens that its client still allows. The share falls with
every step of decoding, and is set anew from those who stay when some had to go. The constants are SGLang's defaults
(``global_config.py`` and ``schedule_policy.py``).
"""

from collections.abc import Iterable, Mapping

from capsim.memory import BlockRule
from capsim.sim.sequence import Sequence

FIRST_SHARE = 0.7
LAST_SHARE = 0.7 * 0.14
DECAY_STEPS = 600
CLIP_TOKENS = 4096
ROOM_STEPS = 20


class TokenEstimate:
    """The share of the allowed tokens that running requests are expected to use, and what follows from it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Nobody runs any more."""
        self._first, self._steps = FIRST_SHARE, 0

    def decay(self, steps: int) -> None:
        """Steps of decoding have passed."""
        self._steps += steps

    @property
    def share(self) -> float:
        decay = (FIRST_SHARE - LAST_SHARE) / DECAY_STEPS
        return max(LAST_SHARE, self._first - self._steps * decay)

    def admits(
        self, sequence: Sequence, running: Mapping[int, Sequence], clock: int, free_blocks: int, shared: int,
        rule: BlockRule,
    ) -> bool:  # fmt: skip
        """Whether a request may join those that run; those still in prefill count in full."""
        wanted = rule.blocks(sequence.known_tokens + _allowed(sequence, sequence.generated_tokens)) - shared
        expected = 0.0
        for other in running.values():
            left = _allowed(other, _generated(other, clock))
            if other.decoding:
                expected += left * self.share
            else:
                expected += left + other.known_tokens - other.computed_tokens
        return wanted < free_blocks - expected / rule.block_tokens

    def victim(self, running: Mapping[int, Sequence], clock: int) -> Sequence:
        """Whom to retract first: the fewest tokens, then the longest prompt, then the youngest."""
        return min(running.values(), key=lambda s: (_generated(s, clock), -s.prompt_tokens, -s.ticket))

    def has_room(self, free_tokens: int, staying: int) -> bool:
        """Whether those who stay can go on for a while."""
        return free_tokens >= ROOM_STEPS * staying

    def start_over(self, staying: Iterable[Sequence], clock: int) -> None:
        """Set the share anew from those who stay."""
        counts = [(_generated(sequence, clock), sequence.max_tokens) for sequence in staying]
        used = sum(generated + ROOM_STEPS for generated, _ in counts)
        self._first, self._steps = min(1.0, used / sum(allowed for _, allowed in counts)), 0


def _generated(sequence: Sequence, clock: int) -> int:
    return sequence.base + clock - sequence.prompt_tokens if sequence.decoding else sequence.generated_tokens


def _allowed(sequence: Sequence, generated: int) -> int:
    return min(sequence.max_tokens - generated, CLIP_TOKENS)
