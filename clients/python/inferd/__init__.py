"""inferd: the client of an inferd appliance for what must arrive.

Jobs are requests that the appliance keeps on disk until their results are fetched; streams are many predictions over one WebSocket that comes
back by itself. Plain predictions need no package of ours: any client of TensorFlow Serving's REST or gRPC makes them.

    import inferd

    box = inferd.Client("http://box:8501")
    job = box.submit("scale", instances=[[1.0]])
    answer = box.result(job.id)                       # waits; answer.predictions is a numpy array

    with box.stream() as s:
        s.send("scale", instances=[[1.0]], durable=True)
        s.close_send()
        for result in s:
            print(result.id, result.predictions)
            s.ack(result)                             # once it is kept; until then the appliance keeps it

The same with asyncio: AsyncClient, and `async with box.stream() as s`. What was accepted is answered once: a durable request is sent again until
the appliance has it on disk, and its result comes until it was acknowledged, and is passed on once.
"""

from ._client import AsyncClient, Client
from ._sync import Stream
from ._types import ClosedError, DroppedError, Error, InferdError, Job, LostError, Result, Session, SessionError, Stats
from ._stream import AsyncStream

__all__ = [
    "AsyncClient", "AsyncStream", "Client", "ClosedError", "DroppedError", "Error", "InferdError", "Job", "LostError", "Result", "Session",
    "SessionError", "Stats", "Stream",
]
