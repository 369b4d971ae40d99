"""test_daemon.py: jobs and streams against a running inferd, which is killed in the middle."""

import asyncio
import threading

import numpy as np
import pytest

import inferd
from conftest import PATIENCE, Daemon


def test_jobs_survive_a_kill(daemon):
    box = inferd.Client(daemon.base, max_backoff=0.2)
    jobs = [box.submit("half_plus_two", instances=np.float32([n]), key=f"key-{n}", timeout=60) for n in range(10)]
    daemon.kill()
    daemon.start()
    jobs += [box.submit("half_plus_two", instances=[n], key=f"key-{n}", timeout=60) for n in range(10, 20)]
    for n, job in enumerate(jobs):
        again = box.submit("half_plus_two", instances=np.float32([n]) if n < 10 else [n], key=f"key-{n}")
        assert (again.id, again.existed) == (job.id, True)
        r = box.result(job.id, timeout=60)
        assert r.predictions.tolist() == [n / 2 + 2] and r.value() is r.predictions
    with pytest.raises(inferd.Error) as e:
        box.submit("half_plus_two", instances=[99], key="key-0")
    assert e.value.status == 409
    with pytest.raises(inferd.Error) as e:
        box.submit("nobody", instances=[1])
    assert e.value.status == 404
    box.forget(jobs[0].id)
    box.forget(jobs[0].id)
    with pytest.raises(inferd.Error) as e:
        box.job(jobs[0].id)
    assert e.value.status == 404
    assert box.wait(jobs[1].id, timeout=10).state == "done"


def test_jobs_with_asyncio(daemon):
    async def run():
        box = inferd.AsyncClient(daemon.base)
        jobs = await asyncio.gather(*(box.submit("half_plus_two", inputs=[n]) for n in range(8)))
        results = await asyncio.gather(*(box.result(j.id) for j in jobs))
        assert [r.outputs.tolist() for r in results] == [[n / 2 + 2] for n in range(8)]
        nobody = asyncio.create_task(inferd.AsyncClient("127.0.0.1:1").job("x"))
        await asyncio.sleep(0)
        nobody.cancel()
        with pytest.raises(asyncio.CancelledError):
            await nobody
    asyncio.run(run())


def test_stream_survives_kills(daemon, tmp_path):
    """Kill -9 of the appliance, and an end of the client without a word: every input has one result."""
    file, inputs, seen = tmp_path / "session", 200, {}

    def life(stop, kill_at):
        with inferd.Client(daemon.base, max_backoff=0.2).stream(session=inferd.Session.load(file)) as s:
            def send():
                try:
                    for n in range(inputs):
                        s.send("half_plus_two", instances=[n], id=str(n), durable=True)
                    s.close_send()
                except inferd.ClosedError:
                    pass
            sender = threading.Thread(target=send)
            sender.start()
            for count, r in enumerate(s):
                assert r.value().tolist() == [int(r.id) / 2 + 2] and r.seq > 0
                seen[r.id] = seen.get(r.id, 0) + 1
                s.session_after(r).save(file)  # kept first, then acknowledged
                s.ack(r)
                if count == kill_at:
                    daemon.kill()
                    daemon.start()
                if count + 1 == stop:
                    break
        sender.join()
    life(50, 20)
    daemon.kill()
    daemon.start()
    life(None, 60)
    assert {id: n for id, n in seen.items() if n != 1} == {} and len(seen) == inputs


def test_stream_with_asyncio(daemon):
    async def run():
        async with inferd.AsyncClient(daemon.base).stream() as s:
            async def send():
                for n in range(20):
                    await s.send("half_plus_two", instances=np.array([n]), ordered=True)
                s.close_send()
            sender = asyncio.create_task(send())
            results = [r async for r in s]
            await sender
            assert [r.value().tolist() for r in results] == [[n / 2 + 2] for n in range(20)]
            assert (s.stats.sent, s.stats.answered, s.stats.connections) == (20, 20, 1)
            assert s.session.id == ""  # nothing durable was sent
            with pytest.raises(inferd.ClosedError):
                await s.send("half_plus_two", instances=[1])
    asyncio.run(run())


def test_stream_says_what_is_wrong(daemon):
    with inferd.Client(daemon.base).stream() as s:
        for model, instances, code in (("half_plus_two", ["a"], "INVALID_ARGUMENT"), ("nobody", [1], "NOT_FOUND")):
            s.send(model, instances=instances)
            r = s.recv(timeout=30)
            assert r.error.code == code
            with pytest.raises(inferd.Error):
                r.value()
        s.send("strings", inputs=["über"], deadline=60, retry=True)
        assert s.recv(timeout=30).error is None
        for wrong in (dict(), dict(instances=1, inputs=1), dict(instances=1, version=1, label="x"), dict(instances=1, id=""), dict(instances=1, durable=True, drop_oldest=True),
                      dict(instances=1, lane="x"), dict(media=b"x", inputs=1)):
            with pytest.raises(ValueError):
                s.send("half_plus_two", **wrong)
        with pytest.raises(TimeoutError):
            s.recv(timeout=0.01)


def test_live_sources_skip(daemon):
    """With drop_oldest, send never waits, and everything has a result: an answer, or that it was dropped."""
    with inferd.Client(daemon.base).stream(buffer=10_000) as s:
        sent = {s.send("half_plus_two", instances=[1], drop_oldest=True) for _ in range(500)}
        s.close_send()
        results = list(s)
        assert {r.id for r in results} == sent
        assert s.stats.answered + s.stats.dropped + s.stats.refused == 500 and s.stats.answered > 0


def test_a_token_where_one_is_asked_for(tmp_path, models):
    d = Daemon(tmp_path, models)
    secret = d.token("robot", "predict", "submit")
    d.start()
    try:
        d.ready("half_plus_two")
        with pytest.raises(inferd.Error) as e:
            inferd.Client(d.base, attempts=1).submit("half_plus_two", instances=[1.0])
        assert e.value.status == 401 and e.value.reason == "login" and not e.value.temporary
        box = inferd.Client(d.base, token=secret)
        assert box.result(box.submit("half_plus_two", instances=[1.0]).id, timeout=PATIENCE).predictions.tolist() == [2.5]
        with box.stream() as s:
            s.send("half_plus_two", instances=[3.0], durable=True)
            assert s.recv(timeout=PATIENCE).value().tolist() == [3.5]
        with inferd.Client(d.base).stream() as s, pytest.raises(inferd.InferdError, match="HTTP 401"):
            s.recv(timeout=PATIENCE)
        assert secret.strip() not in d.log.read_text()
    finally:
        d.end()
