"""A run's random numbers, which replay repeats.

They follow from the id that the run was first started with. A run that begins as another one did
sees that one's numbers up to the point where it begins anew; from then on, ones of its own.
"""

import random

from aetheris_worker.runtime.parts import RunPart, RunScope


class RandomNumbers(RunPart):
    """One source for all of a run's code."""

    def __init__(self, scope: RunScope) -> None:
        super().__init__(scope)
        self._seed = ""
        self._source: random.Random | None = None

    def begin_anew(self, seed: str) -> None:
        """From here on the numbers follow from this seed, also in the code's own hands."""
        self._seed = seed
        if self._source is not None:
            self._source.seed(seed)

    def source(self, first_seed: str) -> random.Random:
        """The source; where nothing else has been said, it follows from `first_seed`."""
        if self._source is None:
            self._source = random.Random(self._seed or first_seed)
        return self._source
