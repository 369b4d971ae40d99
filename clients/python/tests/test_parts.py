"""test_parts.py: the parts that need no appliance."""

import numpy as np
import pytest

import inferd
from inferd._http import refusal, seconds
from inferd._stream import _number
from inferd._types import arrays, backoff, plain, request_values


def test_backoff_is_never_early_and_never_the_same():
    seen = set()
    for n in range(100):
        assert 0.05 <= backoff(n, 0, 0.1, 10) <= 10
        assert 20 <= backoff(n, 20, 0.1, 10) <= 25
        assert backoff(n, 1e9, 0.1, 10) <= 3600 * 1.25
        seen.add(backoff(n, 0, 0.1, 10))
    assert len(seen) > 50


@pytest.mark.parametrize("text,want", [("3", 3), ("-3", 0), ("x", 0), ("", 0), ("999999", 3600), ("Fri, 02 Jan 2026 03:04:15 GMT", 0)])
def test_retry_after(text, want):
    assert seconds(text) == want


def test_refusals():
    e = refusal(429, {"Retry-After": "2", "X-Inferd-Reason": "rate"}, b'{"error": "too many"}')
    assert (e.status, e.reason, e.message, e.retry_after, e.temporary) == (429, "rate", "too many", 2, True)
    assert not refusal(409, {"Retry-After": "2"}, b"not JSON").temporary
    assert refusal(500, {}, b"[1]").message == "[1]"
    assert inferd.Error("busy", code="UNAVAILABLE").temporary and not inferd.Error("wrong", code="INVALID_ARGUMENT").temporary


def test_arrays_both_ways():
    assert plain({"a": np.float32([1, 2]), 1: (np.int64(3), [np.array("x")])}) == {"a": [1.0, 2.0], "1": [3, ["x"]]}
    assert arrays([[1.0, 2.0]]).shape == (1, 2) and arrays(2).shape == ()
    rows = arrays([{"a": 1, "b": [1, 2]}, {"a": 2, "b": [3, 4]}])
    assert rows["a"].tolist() == [1, 2] and rows["b"].shape == (2, 2)
    assert arrays([{"b64": "aA=="}]) == [{"b64": "aA=="}] and arrays([[1], [1, 2]]) == [[1], [1, 2]] and arrays([None, 1]) == [None, 1]
    with pytest.raises(ValueError):
        request_values(None, None)


@pytest.mark.parametrize("id,want", [("7", 7), ("07", None), ("-1", None), ("x", None), ("", None), ("٣", None), ("9" * 30, None)])
def test_numbers(id, want):
    assert _number(id) == want


def test_session_file(tmp_path):
    file = tmp_path / "session"
    assert inferd.Session.load(file) == inferd.Session()
    s = inferd.Session("s", 3, 9, [7], ["a", "8"], "mine")
    s.save(file)
    assert inferd.Session.load(file) == s and list(tmp_path.iterdir()) == [file]
    file.write_text("[]")
    with pytest.raises(inferd.InferdError, match="remove it"):
        inferd.Session.load(file)


@pytest.mark.parametrize("base", ["ftp://x", "http://", ""])
def test_addresses(base):
    with pytest.raises(ValueError):
        inferd.Client(base)


def test_nobody_there():
    box = inferd.Client("127.0.0.1:1", attempts=2, min_backoff=0.001, max_backoff=0.001)
    with pytest.raises(inferd.InferdError):
        box.job("x")
    with box.stream() as s, pytest.raises(inferd.InferdError, match="2 tries"):
        s.recv()
    with pytest.raises(TimeoutError), inferd.Client("127.0.0.1:1").stream() as s:
        s.send("m", instances=[1], timeout=0.05)
    with pytest.raises(TimeoutError):
        inferd.Client("127.0.0.1:1").job("x", timeout=0.05)


def test_token_goes_with_everything_and_into_no_message():
    box = inferd.Client("https://box:8501", token=" inferd_secret\n", headers={"X-A": "b"})
    assert box._http.headers == {"X-A": "b", "Authorization": "Bearer inferd_secret"}
    assert box._stream_options(None, 1, 1, 1.0)["headers"]["Authorization"] == "Bearer inferd_secret"
    with pytest.raises(ValueError) as e:
        inferd.Client("box:8501", token="two words")
    assert "two" not in str(e.value)
    assert not refusal(401, {"X-Inferd-Reason": "login"}, b'{"error": "the request has none"}').temporary
