"""Runs kept in memory, so that their next workflow task needs only the new events."""

from collections import OrderedDict

from aetheris_worker.runtime.replay import RunMachine


class RunCache:
    """The runs used last, by run id. A run that leaves it is evicted."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._machines: OrderedDict[str, RunMachine] = OrderedDict()

    def __len__(self) -> int:
        return len(self._machines)

    def find(self, run_id: str) -> RunMachine | None:
        """The run, which is now the one used last."""
        machine = self._machines.get(run_id)
        if machine is not None:
            self._machines.move_to_end(run_id)
        return machine

    def put(self, run_id: str, machine: RunMachine) -> None:
        """Keep it; another machine of the same run, and the run used longest ago, leave."""
        previous = self._machines.pop(run_id, None)
        if previous is not None and previous is not machine:
            previous.evict()
        self._machines[run_id] = machine
        while len(self._machines) > self._capacity:
            _, oldest = self._machines.popitem(last=False)
            oldest.evict()

    def drop(self, run_id: str, machine: RunMachine) -> None:
        """Evict this machine; another machine of the same run stays."""
        if self._machines.get(run_id) is machine:
            del self._machines[run_id]
        machine.evict()

    def clear(self) -> None:
        """Evict all."""
        while self._machines:
            _, machine = self._machines.popitem(last=False)
            machine.evict()
