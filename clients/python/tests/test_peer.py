"""test_peer.py: a stream against a peer that plays a script, for what a real appliance does not do on demand."""

import asyncio
import json

import pytest
from websockets.asyncio.server import serve

import inferd

HELLO = {"hello": {"session": "s1", "credits": 2, "max_frame": 4096, "idle_s": 60}}


def play(script):
    """Runs script(stream, connections) with a peer whose connections come out of a queue, greeted."""
    async def run():
        conns: asyncio.Queue = asyncio.Queue()

        async def accept(conn):
            await conn.send(json.dumps(HELLO))
            conns.put_nowait(conn)
            await conn.wait_closed()
        async with serve(accept, "127.0.0.1", 0, subprotocols=["inferd.v1.json"]) as server:
            port = server.sockets[0].getsockname()[1]
            async with inferd.AsyncClient(f"127.0.0.1:{port}", min_backoff=0.001, max_backoff=0.01).stream() as s:
                await asyncio.wait_for(script(s, conns), 60)
    asyncio.run(run())


async def hears(conn, **want):
    assert json.loads(await conn.recv()) == want


def test_resume_and_acknowledge():
    async def script(s, conns):
        conn = await conns.get()
        await s.send("m", instances=[1], durable=True)
        await hears(conn, id="0", model="m", durable=True, instances=[1])
        await s.send("m", instances=[2], durable=True)
        await hears(conn, id="1", model="m", durable=True, instances=[2])
        await conn.send('{"id":"0","predictions":[1],"seq":1}')
        r = await s.recv()
        conn.transport.abort()  # a pulled plug
        conn = await conns.get()
        await hears(conn, resume={"session": "s1", "after": 0})
        s.ack(r)  # the new connection has not brought it yet
        await conn.send('{"resumed":{"session":"s1","last":1,"pending":1}}')
        await hears(conn, id="1", model="m", durable=True, instances=[2])
        await conn.send('{"id":"0","predictions":[1],"seq":1}')
        await hears(conn, ack=1)
        await conn.send('{"id":"1","predictions":[NaN],"seq":2}')
        r = await s.recv()
        assert r.id == "1" and r.predictions.shape == (1,) and s.session.waiting == ["1"] and s.session_after(r).waiting == []
        assert (s.stats.twice, s.stats.again, s.stats.resumed, s.stats.answered) == (1, 1, 1, 2)
    play(script)


def test_lost_and_refused():
    async def script(s, conns):
        conn = await conns.get()
        await s.send("m", instances=[1])
        await s.send("m", instances=[2], retry=True)
        await conn.recv(), await conn.recv()
        conn.transport.abort()
        assert isinstance((await s.recv()).error, inferd.LostError)
        conn = await conns.get()
        await hears(conn, id="1", model="m", instances=[2])
        await conn.send('{"id":"1","error":"busy","code":"UNAVAILABLE","retry_ms":1}')
        await conn.send('{"credits":1}')
        await hears(conn, id="1", model="m", instances=[2])
        await conn.send('{"id":"1","error":"a newer one","code":"ABORTED","reason":"dropped"}')
        assert isinstance((await s.recv()).error, inferd.DroppedError)
        await conn.close(4004)
        with pytest.raises(inferd.InferdError, match="taken the session over"):
            await s.recv()
    play(script)


@pytest.mark.parametrize("frame", ["{", "[]", '{"credits":-1}', '{"id":"1"}', b"x"])
def test_hostile(frame):
    """A peer that breaks the rules costs its connection, nothing else."""
    async def script(s, conns):
        conn = await conns.get()
        await conn.send(frame)
        await conn.wait_closed()
        conn = await conns.get()
        await s.send("m", media=b"\xff\xd8")
        got = await conn.recv()
        length = int.from_bytes(got[2:4], "little")
        assert got[:2] == b"\x03\0" and json.loads(got[4 : 4 + length]) == {"id": "0", "model": "m"} and got[4 + length :] == b"\xff\xd8" and (4 + length) % 8 == 0
    play(script)
