"""What a machine is: one kind of thing in a run that begins, waits and ends, such as a timer.

A machine is a table of functions, all pure. The drivers (`apply`, `observe`, `commands`,
`deadlines`, `obligations`, `snapshot`) know only this form, and find the machines in `registry`.
Whatever a machine leaves out costs nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from google.protobuf import timestamp_pb2

from aetheris.api.v1 import command_pb2, history_pb2, workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2, matching_service_pb2, run_calls_pb2, state_pb2
from aetheris_server.errors import UnknownRecordError
from aetheris_server.history.aggregates.obligation import Obligation
from aetheris_server.history.state.command_pass import CommandPass
from aetheris_server.history.state.draft import Draft, FlushedIds
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.run import RunState

CommandHandler = Callable[[CommandPass, command_pb2.Command], None]
"""Checks a command and drafts what it leads to; raises CommandRefusedError."""

TaskRefs = Iterable[matching_service_pb2.TaskRef]

Obligations = Iterable[Obligation]

AnswerHandler = Callable[[Draft, RunState, int, run_calls_pb2.RunCallAnswer], None]
"""Drafts what came of a call that the run owes, by the call's number; nothing where the run does
not owe it any more. An open run's code is shown it; a closed one notes in a fact that it is done.
"""


def _changes_nothing(_state: RunState, _event: history_pb2.HistoryEvent) -> None:
    """What the event says is in the state already, or concerns only workers."""


@dataclass(frozen=True, slots=True)
class OnEvent:
    """What one type of event does.

    Attributes:
        apply: To the state. An event that was buffered is applied when it is buffered, with the id
            0, and again when it gets its id.
        observe: To what workers have; the event has been applied.
        deadlines: The durable deadlines that it has brought.
        obligations: What it has brought that is due at once. It is offered: tasks do not back off
            from here on.
        is_for_code: Whether the run's code is shown it by a workflow task, and closes the run only
            once it has been. Not so what only tells people what was done to the run.
        finish: Of an event that goes behind signals that wait in the buffer with it; what it says
            of others there is filled in, when it gets its id.
    """

    apply: Callable[[RunState, history_pb2.HistoryEvent], None] = _changes_nothing
    observe: Callable[[Inflight, history_pb2.HistoryEvent], None] | None = None
    deadlines: Callable[[RunState, history_pb2.HistoryEvent], Iterable[datetime]] | None = None
    obligations: (
        Callable[[RunState, Inflight, history_pb2.HistoryEvent, datetime], Obligations] | None
    ) = None
    is_for_code: bool = True
    finish: Callable[[history_pb2.HistoryEvent, FlushedIds], None] | None = None


@dataclass(frozen=True, slots=True)
class OnFact:
    """What one fact does; see `OnEvent`. `apply` also gets the time of the record."""

    apply: Callable[[RunState, log_pb2.Fact, timestamp_pb2.Timestamp], None]
    observe: Callable[[Inflight, log_pb2.Fact], None] | None = None
    deadlines: Callable[[RunState, log_pb2.Fact], Iterable[datetime]] | None = None
    obligations: Callable[[RunState, Inflight, log_pb2.Fact, datetime], Obligations] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine: what there is of it, each part optional.

    Attributes:
        name: In the log and in snapshots, so it never changes.
        commands: By command type.
        closing_commands: Those that close the run, also where this version does not serve them.
        events: By event type.
        facts: By the name of the field in `Fact`.
        own_fact: Of this machine's `MachineFact`s, for a machine without a field in `Fact`.
        deadlines: All durable ones that nobody has met yet.
        inflight_deadlines: Those of what workers have, or may have had, by the clock for intervals.
        decide_due: Drafts what is due at `draft.now`, and, by the clock for intervals, at the last
            argument.
        owes: Whether a crash now would leave something to offer again.
        obligations: Everything that is due and that nobody has.
        take_due: The tasks that backed off until now. They are offered: from here on they do not.
        closed_owes: The same as `owes`, of a run that has closed.
        closed_obligations: Everything that a run owes that has closed. It ends with facts.
        answered: What came of its calls to other runs, by what `RunCall` asks.
        restore: Takes what the state says into `Inflight` after a load, at a time by both clocks.
        close: Drops what an open run alone has, when the run has closed.
        save: Puts what the machine keeps into its fields of the snapshot.
        load: Takes it back from there into a state that has none of it.
        find_unknown: The first thing in its fields that only a newer program knows; else None.
        save_part: What the machine keeps, for one without fields in the snapshot; None for nothing.
        load_part: Takes that back, and counts it in `held_bytes`.
        describe: Puts what users see of it into the answer.
        waits: What an open run waits for on account of it, now.
    """

    name: str
    commands: Mapping[int, CommandHandler] = field(default_factory=dict[int, CommandHandler])
    closing_commands: frozenset[int] = frozenset()
    events: Mapping[int, OnEvent] = field(default_factory=dict[int, OnEvent])
    facts: Mapping[str, OnFact] = field(default_factory=dict[str, OnFact])
    own_fact: OnFact | None = None
    deadlines: Callable[[RunState, Inflight, datetime], Iterable[datetime]] | None = None
    inflight_deadlines: Callable[[RunState, Inflight], Iterable[float]] | None = None
    decide_due: Callable[[Draft, RunState, Inflight, float], None] | None = None
    owes: Callable[[RunState], bool] | None = None
    obligations: Callable[[RunState, Inflight, datetime], Obligations] | None = None
    take_due: Callable[[RunState, Inflight, datetime], TaskRefs] | None = None
    closed_owes: Callable[[RunState], bool] | None = None
    closed_obligations: Callable[[RunState], Obligations] | None = None
    answered: Mapping[str, AnswerHandler] = field(default_factory=dict[str, AnswerHandler])
    restore: Callable[[RunState, Inflight, datetime, float], None] | None = None
    close: Callable[[RunState], None] | None = None
    save: Callable[[RunState, state_pb2.RunSnapshot], None] | None = None
    load: Callable[[RunState, state_pb2.RunSnapshot], None] | None = None
    find_unknown: Callable[[state_pb2.RunSnapshot], str | None] | None = None
    save_part: Callable[[RunState], bytes | None] | None = None
    load_part: Callable[[RunState, bytes], None] | None = None
    waits: Callable[[RunState, Inflight, datetime], Iterable[workflow_pb2.WaitReason]] | None = None
    describe: (
        Callable[[RunState, Inflight, workflow_service_pb2.DescribeWorkflowResponse], None] | None
    ) = None


def unknown_record(state: RunState, what: str) -> UnknownRecordError:
    """The error for what a newer program has written into the record that is being applied."""
    return UnknownRecordError(state.key.run_id, state.run_seq + 1, what)
