"""_types.py: what goes in and out of the client: results, jobs, sessions, errors, and how long to wait between two tries."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import random
import tempfile
from typing import Any

import numpy as np

MAX_HINT = 3600.0  # what an appliance asks for beyond an hour is a mistake


class InferdError(Exception):
    """Whatever this package says went wrong."""


class Error(InferdError):
    """What the appliance said instead of an answer."""

    def __init__(self, message: str, *, status: int = 0, code: str = "", reason: str = "", retry_after: float = 0.0):
        super().__init__(f"{message} ({f'HTTP {status}' if status else code or 'refused'})")
        self.message, self.status, self.code, self.reason = message, status, code, reason
        self.retry_after = min(max(retry_after, 0.0), MAX_HINT)

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed later: the appliance is busy, full, or about to go."""
        if self.status == 0:
            return self.code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
        return self.status in (429, 502, 503, 504, 507) or (self.retry_after > 0 and self.status != 409)


class LostError(InferdError):
    """The connection was lost before the answer came, and the request was neither durable nor retry."""


class DroppedError(InferdError):
    """The input gave way to a newer one."""


class SessionError(InferdError):
    """The appliance does not know the session any more: its unacknowledged results are gone. The job may still be asked for by its id."""


class ClosedError(InferdError):
    """The stream is closed, or nothing more may be sent."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What the appliance knows about a job. The states are queued, leased, done, failed, dead, cancelled and expired."""

    id: str
    state: str
    model: str = ""
    version: int = 0
    attempts: int = 0
    submitted: str = ""
    finished: str = ""
    error: str = ""
    existed: bool = False  # of submit: the appliance had it already

    @property
    def over(self) -> bool:
        """Whether the job will not run any more, unless somebody retries it."""
        return self.state not in ("queued", "leased")

    @staticmethod
    def read(text: bytes, existed: bool = False) -> "Job":
        got = json.loads(text)
        if not isinstance(got, dict) or not got.get("id") or not got.get("state"):
            raise InferdError(f"the answer is no job: {text[:100]!r}")
        known = {f.name for f in dataclasses.fields(Job)} - {"version", "existed"}
        return Job(**{k: v for k, v in got.items() if k in known and v is not None}, version=int(got.get("version") or 0), existed=existed)


@dataclasses.dataclass(frozen=True)
class Result:
    """The answer to one request. Exactly one of predictions, outputs and error is not None.

    predictions (of instances) and outputs (of inputs) are numpy arrays, or dicts of them by output name; what is no regular array of numbers or
    texts stays as JSON has it.
    """

    id: str = ""
    version: int = 0
    predictions: Any = None
    outputs: Any = None
    error: InferdError | None = None
    seq: int = 0  # of a durable result: for ack; 0 else
    job: str = ""  # a durable request's job, when this stream sent it
    took: float = 0.0  # seconds since send; 0 when another stream sent it

    def value(self) -> Any:
        """The predictions or outputs; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return self.predictions if self.predictions is not None else self.outputs


@dataclasses.dataclass
class Stats:
    """What a stream did until now."""

    sent: int = 0  # requests that went out, the first time
    answered: int = 0  # results without an error
    refused: int = 0  # results with one, dropped and lost apart
    dropped: int = 0
    lost: int = 0
    again: int = 0  # requests that went out once more
    resumed: int = 0  # results that came after their connection was lost, or of an earlier process
    twice: int = 0  # results that came again and were not passed on
    connections: int = 0
    connected: bool = False


@dataclasses.dataclass
class Session:
    """A stream's durable identity. Save it before a result is acknowledged, and nothing is lost and nothing comes twice, however often either
    side dies. The form is the Go client's too."""

    id: str = ""
    acked: int = 0  # ack was called for every result up to this
    next: int = 0  # the number that the next request without an id gets
    open: list[int] = dataclasses.field(default_factory=list)  # numbers below next that the appliance may not have: send them again, same id
    waiting: list[str] = dataclasses.field(default_factory=list)  # ids of accepted requests whose results were not acknowledged: they will come
    note: str = ""  # its user's own

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Session":
        """Reads what save wrote. A file that is not there is a new session."""
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return Session()
        if not text:
            return Session()
        try:
            got = json.loads(text)
            return Session(str(got["session"]), int(got["acked"]), int(got["next"]), [int(n) for n in got.get("open", [])], [str(i) for i in got.get("waiting", [])], str(got.get("note", "")))
        except (ValueError, KeyError, TypeError) as e:
            raise InferdError(f"{path} is no session of a stream: {e}; remove it to begin a new one") from e

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the session so that a crash leaves either the old or the new one."""
        text = json.dumps({"session": self.id, "acked": self.acked, "next": self.next, "open": self.open, "waiting": self.waiting, "note": self.note})
        target = pathlib.Path(path)
        fd, temporary = tempfile.mkstemp(prefix=target.name + ".", dir=target.parent)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as f:
                f.write(text + "\n")
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise


def backoff(n: int, hint: float, least: float, most: float) -> float:
    """How long to wait before try number n (from 0), when the appliance asked for hint seconds. Half of it is left to chance, so that a thousand
    clients of a box that restarts do not come back as one."""
    d = min(most, least * 2 ** min(n, 32))
    d = random.uniform(d / 2, d)
    if hint > 0:
        hint = min(hint, MAX_HINT)
        return max(d, random.uniform(hint, hint * 1.25))
    return d


def plain(value: Any) -> Any:
    """numpy values as what json writes."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def arrays(value: Any) -> Any:
    """JSON values as numpy arrays, where they are regular. Row form with named outputs (a list of objects) becomes an object of arrays."""
    if isinstance(value, dict):
        return {k: arrays(v) for k, v in value.items()}
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        if all(v.keys() == value[0].keys() for v in value) and "b64" not in value[0]:
            return {k: arrays([v[k] for v in value]) for k in value[0]}
        return value
    try:
        got = np.array(value)
    except ValueError:
        return value
    return value if got.dtype == object else got


def request_values(instances: Any, inputs: Any) -> dict[str, Any]:
    """The member of a request that holds its values."""
    if (instances is None) == (inputs is None):
        raise ValueError("a request has either instances or inputs")
    return {"inputs": plain(inputs)} if instances is None else {"instances": plain(instances)}


def target(model: str, version: int | None, label: str | None) -> None:
    if not model:
        raise ValueError("a request needs a model")
    if version is not None and label is not None:
        raise ValueError("version and label both choose a version; give one of them")
