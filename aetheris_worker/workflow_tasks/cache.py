"""Runs kept in memory, so that their next workflow task needs only the new events."""

from collections import OrderedDict

from aetheris_worker.runtime.replay import RunMachine


class MachineCache:
    """The runs used last, by run id. Those that leave it are the caller's to evict."""

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

    def put(self, run_id: str, machine: RunMachine) -> list[tuple[str, RunMachine]]:
        """Keep it. Another machine of the same run, and the run used longest ago, leave; returns
        those that do.
        """
        leaving: list[tuple[str, RunMachine]] = []
        previous = self._machines.pop(run_id, None)
        if previous is not None and previous is not machine:
            leaving.append((run_id, previous))
        self._machines[run_id] = machine
        while len(self._machines) > self._capacity:
            leaving.append(self._machines.popitem(last=False))
        return leaving

    def forget(self, run_id: str, machine: RunMachine) -> None:
        """Keep this machine no longer; another machine of the same run stays."""
        if self._machines.get(run_id) is machine:
            del self._machines[run_id]

    def clear(self) -> list[tuple[str, RunMachine]]:
        """Keep none; returns those that leave."""
        leaving = list(self._machines.items())
        self._machines.clear()
        return leaving
