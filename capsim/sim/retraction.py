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

    def wanted_blocks(self, sequence: Sequence, rule: BlockRule) -> int:
        """Blocks of a request's prompt and of all that its client allows."""
        return rule.blocks(sequence.known_tokens + _allowed(sequence, sequence.generated_tokens))

    def expected_tokens(self, running: Mapping[int, Sequence], clock: int) -> float:
        """What those inside are expected to ask for; those prefilled in this step hold their prompts already."""
        share, expected = self.share, 0.0
        for sequence in running.values():
            left = _allowed(sequence, _generated(sequence, clock))
            expected += left * share if sequence.decoding else left
        return expected

    def steps_blocked(self, lack_tokens: float, running: Mapping[int, Sequence], clock: int) -> int:
        """Steps of decoding in which a lack of so many tokens surely stays.

        A step lowers what is expected by the share that each sequence uses up and by the fall of the share, both of
        which get less from step to step.
        """
        lefts = [_allowed(sequence, _generated(sequence, clock)) for sequence in running.values()]
        gain = len(lefts) * self.share + sum(lefts) * (FIRST_SHARE - LAST_SHARE) / DECAY_STEPS
        return max(1, int(lack_tokens / gain) - 1)

    def victim(self, running: Mapping[int, Sequence], clock: int) -> Sequence:
        """Whom to retract first: the fewest tokens, then the longest prompt, then the youngest."""
        return min(running.values(), key=lambda s: (_generated(s, clock), -s.prompt_tokens, -s.ticket))

    def has_room(self, free_tokens: int, staying: int) -> bool:
        """Whether those who stay can go on for a while."""
        return free_tokens >= ROOM_STEPS * staying

    def start_over(self, staying: Iterable[Sequence], clock: int) -> None:
        """Set the share anew from those who stay."""
        self.reset()
        counts = [(_generated(sequence, clock), sequence.max_tokens) for sequence in staying]
        used = sum(generated + ROOM_STEPS for generated, _ in counts)
        if counts:
            self._first = min(1.0, used / sum(allowed for _, allowed in counts))


def _generated(sequence: Sequence, clock: int) -> int:
    return sequence.base + clock - sequence.prompt_tokens if sequence.decoding else sequence.generated_tokens


def _allowed(sequence: Sequence, generated: int) -> int:
    return min(sequence.max_tokens - generated, CLIP_TOKENS)
