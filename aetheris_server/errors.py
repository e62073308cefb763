"""Every error that the server's parts raise to each other, and so to callers.

    AetherisError
    ├── RequestError                    the caller's fault; nothing was written
    │   ├── InvalidArgumentError        a field of the request is wrong
    │   ├── NamespaceNotFoundError
    │   ├── NamespaceAlreadyExistsError
    │   ├── AggregateNotFoundError      there is none of that name or id
    │   │   └── WorkflowNotFoundError
    │   ├── ActivityNotFoundError       the run has no open activity of that id
    │   ├── WorkflowClosedError         the run takes no more of this
    │   ├── WorkflowAlreadyStartedError
    │   ├── UnstorableError             the store refuses a value that the request carries
    │   ├── TaskNotFoundError           the task was completed, timed out, or given to somebody else
    │   ├── QueryFailedError            the run's code could not answer
    │   ├── QueryRejectedError          the caller asked to be refused for this status
    │   ├── UpdateNotFoundError         the run has no update of that id
    │   ├── UpdateLimitError            the run takes no more updates, at all or for now
    │   ├── WorkflowNotReadyError       the run's code does not run now
    │   └── NotAPeerError               an internal service was called by no host of this cluster
    ├── RunUnreadableError              what is stored of a run cannot be used, now or later
    │   ├── BrokenLogError              a record is missing, altered or out of place
    │   └── UnknownRecordError          a newer program wrote what this one does not know
    └── UnavailableError                not the caller's fault; the same request may succeed later
        ├── ShardNotOwnedError          another host has the run's shard
        ├── ShardLostError              another host took the shard while this one wrote
        ├── CommitFailedError           the write is not known to be on disk
        ├── RunSetAsideError            a fault struck the run; it is loaded anew in a moment
        ├── StorageUnavailableError     Postgres or Redis does not answer
        ├── NotReadyError               nobody answered in time
        ├── ExhaustedError              this server holds as many of them as it may
        └── DrainingError               this server is shutting down

`rpc/errors.py` has the one table from these to gRPC codes and typed details.
"""


class AetherisError(Exception):
    """Base of the tree. The message says subject, found, expected."""


class RequestError(AetherisError):
    """The caller's fault; nothing was written."""


class InvalidArgumentError(RequestError):
    """One field of the request is wrong.

    Attributes:
        field: Path of the field, for example `workflow_type.name`.
        description: What was found and what was expected.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


class NamespaceNotFoundError(RequestError):
    """There is no namespace of that name."""

    def __init__(self, namespace: str) -> None:
        super().__init__(f"namespace {namespace!r} not found")
        self.namespace = namespace


class NamespaceAlreadyExistsError(RequestError):
    """There is a namespace of that name."""

    def __init__(self, namespace: str) -> None:
        super().__init__(f"namespace {namespace!r} already exists")
        self.namespace = namespace


class AggregateNotFoundError(RequestError):
    """There is no such aggregate. `subject` names it, for the message."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"{subject} not found")


class WorkflowNotFoundError(AggregateNotFoundError):
    """There is no such run in the namespace. `run_id` is empty where the newest was asked for."""

    def __init__(self, workflow_id: str, run_id: str = "") -> None:
        super().__init__(f"workflow {workflow_id!r}" + (f" run {run_id!r}" if run_id else ""))
        self.workflow_id = workflow_id
        self.run_id = run_id


class ActivityNotFoundError(RequestError):
    """The run has no open activity of that id: it has ended, or there never was one."""

    def __init__(self, workflow_id: str, run_id: str, activity_id: str) -> None:
        super().__init__(
            f"workflow {workflow_id!r} run {run_id!r} has no open activity {activity_id!r}"
        )
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.activity_id = activity_id


class WorkflowClosedError(RequestError):
    """The run has closed, so it takes no more signals, requests or completions."""

    def __init__(self, workflow_id: str, run_id: str) -> None:
        super().__init__(f"workflow {workflow_id!r} run {run_id!r} has closed")
        self.workflow_id = workflow_id
        self.run_id = run_id


class WorkflowAlreadyStartedError(RequestError):
    """An open run, or a closed one that the reuse policy forbids, has the workflow id."""

    def __init__(self, workflow_id: str, run_id: str, start_request_id: str) -> None:
        super().__init__(f"workflow {workflow_id!r} already started as run {run_id!r}")
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.start_request_id = start_request_id


class TaskNotFoundError(RequestError):
    """The task was completed, timed out, or was given to somebody else."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"task not found: {reason}")
        self.reason = reason


class UnstorableError(RequestError):
    """The store refuses a value that a request carries."""


class QueryFailedError(RequestError):
    """The run's code could not answer the query."""

    def __init__(self, message: str) -> None:
        super().__init__(f"query failed: {message}")
        self.message = message


class QueryRejectedError(RequestError):
    """The run has a status for which the caller asked to be refused: `status`, its enum name."""

    def __init__(self, status: str) -> None:
        super().__init__(f"query rejected: the run's status is {status}")
        self.status = status


class UpdateNotFoundError(RequestError):
    """The run has no update of that id."""

    def __init__(self, workflow_id: str, run_id: str, update_id: str) -> None:
        super().__init__(f"workflow {workflow_id!r} run {run_id!r} has no update {update_id!r}")
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.update_id = update_id


class UpdateLimitError(RequestError):
    """The run takes no more updates, at all or for now; `reason` says which limit it has met."""

    def __init__(self, workflow_id: str, run_id: str, reason: str) -> None:
        super().__init__(f"workflow {workflow_id!r} run {run_id!r} takes no update: {reason}")
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.reason = reason


class WorkflowNotReadyError(RequestError):
    """The run's code does not run now; `reason` says why."""

    def __init__(self, workflow_id: str, run_id: str, reason: str) -> None:
        super().__init__(f"workflow {workflow_id!r} run {run_id!r} is not ready: {reason}")
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.reason = reason


class NotAPeerError(RequestError):
    """Internal services are for the hosts of this cluster."""

    def __init__(self) -> None:
        super().__init__("the service is for the hosts of this cluster")


class RunUnreadableError(AetherisError):
    """What is stored of a run cannot be used, so the run is refused rather than guessed."""


class BrokenLogError(RunUnreadableError):
    """A run's log is not whole at one of its records."""

    def __init__(self, run_id: str, run_seq: int, expected: str, found: str) -> None:
        super().__init__(f"run {run_id!r} record {run_seq}: expected {expected}, found {found}")
        self.run_id = run_id
        self.run_seq = run_seq
        self.expected = expected
        self.found = found


class UnknownRecordError(RunUnreadableError):
    """A newer program wrote a record, or a snapshot at one, that this program does not know."""

    def __init__(self, run_id: str, run_seq: int, unknown: str) -> None:
        super().__init__(
            f"run {run_id!r} record {run_seq}: {unknown} is not known to this program;"
            " a newer one has written it"
        )
        self.run_id = run_id
        self.run_seq = run_seq
        self.unknown = unknown


class UnavailableError(AetherisError):
    """Not the caller's fault; the same request, with the same request id, may succeed later."""


class ShardNotOwnedError(UnavailableError):
    """Another host has the run's shard, or none has it yet."""

    def __init__(self, shard_id: int) -> None:
        super().__init__(f"shard {shard_id} is not owned by this host")
        self.shard_id = shard_id


class ShardLostError(UnavailableError):
    """Another host took shards while this one wrote to them; nothing of the batch was written."""

    def __init__(self, shard_ids: frozenset[int]) -> None:
        super().__init__(f"shards {sorted(shard_ids)} were taken by another host")
        self.shard_ids = shard_ids


class CommitFailedError(UnavailableError):
    """The write is not known to be on disk; repeating it with the same request id is safe."""

    def __init__(self, shard_id: int) -> None:
        super().__init__(f"shard {shard_id}: the commit failed; try again")
        self.shard_id = shard_id


class RunSetAsideError(UnavailableError):
    """A fault of this server struck the run; it is loaded anew in a moment."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id!r} is set aside for a moment after a fault")
        self.run_id = run_id


class StorageUnavailableError(UnavailableError):
    """A store does not answer. `store` is `postgres` or `redis`."""

    def __init__(self, store: str, problem: str) -> None:
        super().__init__(f"{store} is unavailable: {problem}")
        self.store = store
        self.problem = problem


class NotReadyError(UnavailableError):
    """Nobody answered in time, for example because no worker polls."""

    def __init__(self, waited_for: str) -> None:
        super().__init__(f"no answer in time from {waited_for}")
        self.waited_for = waited_for


class ExhaustedError(UnavailableError):
    """This server holds as many of something as it may; the message says what helps."""


class DrainingError(UnavailableError):
    """This server is shutting down; another one, or its successor, will answer."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")
