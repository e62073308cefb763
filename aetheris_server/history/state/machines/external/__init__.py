"""What the run's code asks of other runs: to take a signal, to cancel. One machine for each.

    none ──initiated──► owed ──done────► none
                         └────failed───► none

It is owed from *initiated* on, also when the run closes meanwhile, or by the same decision: what it
comes to is then noted in a fact. Otherwise the code is shown it.
"""

from aetheris_server.history.state.machines.external.cancel import MACHINE as CANCEL
from aetheris_server.history.state.machines.external.signal import MACHINE as SIGNAL

__all__ = ["CANCEL", "SIGNAL"]
