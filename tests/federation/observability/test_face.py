"""The HTTP face and the socket in the home: what they answer, to whom, and what they refuse."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel

from federation.errors import UnavailableError, UsageError
from federation.observability import (
    AddressNotAllowedError,
    Answer,
    Check,
    Face,
    Health,
    NotServingError,
    Observer,
    Recent,
    ask,
    check_address,
    socket_of,
)
from federation.observability.face import CALLERS, REQUEST_BYTES


class Told(BaseModel):
    """A status."""

    jobs: int


class Service:
    """A service whose state a test sets."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        Counter("jobs_total", "Jobs.", registry=self.registry).inc(3)
        self.checks = (Check(name="ledger", ok=True), Check(name="link", ok=True, own=False))
        self.looked = 0
        self.health = Recent(self.look)

    async def look(self) -> Health:
        self.looked += 1
        return Health(checks=self.checks)

    async def status(self) -> Told:
        return Told(jobs=3)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def port(service: Service, tmp_path: Path) -> AsyncIterator[int]:
    async with Observer(tmp_path, "node", ("127.0.0.1", 0)).serving(service) as port:
        yield port


async def fetch(port: int, request: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        answer = b""  # closed before all of it was read
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


async def get(port: int, page: str) -> tuple[int, Any]:
    status, body = await fetch(port, f"GET {page} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return status, json.loads(body) if body.startswith(b"{") else body


async def test_machines_read_health_and_metrics(service: Service, port: int) -> None:
    assert await get(port, "/healthz") == (200, b"ok\n")
    assert await get(port, "/readyz") == (200, {"ready": True, "checks": {"ledger": True, "link": True}})
    assert b"jobs_total 3.0" in (await get(port, "/metrics?x=1"))[1]
    assert await fetch(port, b"HEAD /metrics HTTP/1.1\r\n\r\n") == (200, b"")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9464", 200),
        ("127.0.0.1:9464", 200),
        ("[::1]:9464", 200),
        ("192.0.2.1", 200),
        ("rebound.example:9464", 421),
        ("127.0.0.1.rebound.example", 421),
        ("", 421),
        ("localhost\r\nHost: rebound.example", 421),
    ],
)
async def test_a_web_page_cannot_read_it_under_a_name_of_its_own(port: int, host: str, status: int) -> None:
    said = await fetch(port, f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert said[0] == status and (b"jobs_total" in said[1]) == (status == 200)


async def test_where_others_may_ask_any_name_will_do(service: Service, tmp_path: Path) -> None:
    async with Observer(tmp_path, "node", ("0.0.0.0", 0)).serving(service) as port:
        assert (await fetch(port, b"GET /metrics HTTP/1.1\r\nHost: plant-1.example\r\n\r\n"))[0] == 200


async def test_not_ready_is_503_and_alive_all_the_same(service: Service, port: int) -> None:
    service.checks = (Check(name="ledger", ok=False, detail="/home/owner/disk is full"),)
    status, body = await get(port, "/readyz")
    assert (status, body) == (503, {"ready": False, "checks": {"ledger": False}})
    assert "disk is full" not in str(body)  # reasons are the owner's
    assert (await get(port, "/healthz"))[0] == 200


async def test_reasons_jobs_and_parties_are_on_the_home_s_socket_alone(
    service: Service, port: int, tmp_path: Path
) -> None:
    assert (await get(port, "/status"))[0] == 404
    assert (await get(port, "/health"))[0] == 404
    status, body = await asyncio.to_thread(ask, tmp_path, "node", "/status")
    assert (status, json.loads(body)) == (200, {"jobs": 3})
    assert stat.S_IMODE(socket_of(tmp_path, "node").stat().st_mode) == 0o600


async def test_sound_leaves_out_what_is_the_other_end_s_matter(service: Service, port: int, tmp_path: Path) -> None:
    service.checks = (Check(name="ledger", ok=True), Check(name="link", ok=False, own=False, detail="link-lost"))
    status, body = await asyncio.to_thread(ask, tmp_path, "node", "/health")
    told = json.loads(body)
    assert (status, told["sound"], told["ready"]) == (200, True, False)
    assert told["checks"][1]["detail"] == "link-lost"


async def test_whoever_polls_costs_one_look(service: Service, port: int) -> None:
    await asyncio.gather(*(get(port, "/readyz") for _ in range(10)))
    assert service.looked == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /../status HTTP/1.1\r\n\r\n", 404),
        (b"\x16\x03\x01\r\n\r\n", 405),
        (b"GET /" + b"a" * (2 * REQUEST_BYTES) + b" HTTP/1.1\r\n\r\n", 0),
    ],
)
async def test_anything_else_is_refused(port: int, request_: bytes, status: int) -> None:
    assert (await fetch(port, request_))[0] == status
    assert (await get(port, "/healthz"))[0] == 200


async def test_more_callers_than_there_is_room_for_are_turned_away(port: int) -> None:
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CALLERS)]
    try:
        assert (await fetch(port, b"GET /healthz HTTP/1.1\r\n\r\n"))[0] == 0
    finally:
        for _, writer in idle:
            writer.close()


async def test_a_page_that_fails_says_so_and_no_more() -> None:
    async def broken() -> Answer:
        raise ValueError("row 123.45")

    face = Face({"/x": broken})
    port = await face.listen("127.0.0.1", 0)
    try:
        assert await get(port, "/x") == (500, b"internal error\n")
    finally:
        await face.close()


async def test_a_port_that_is_taken_is_said_to_be(port: int) -> None:
    with pytest.raises(UnavailableError, match="cannot listen on"):
        await Face({}).listen("127.0.0.1", port)


async def test_a_home_may_lie_deeper_than_a_socket_s_address_is_long(service: Service, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 40] * 4)
    deep.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left_behind:  # by a crash: the file stays, nobody listens
        left_behind.bind(f"/proc/self/fd/{open_folder(deep)}/node.sock")
    with pytest.raises(NotServingError):
        await asyncio.to_thread(ask, deep, "node", "/healthz")
    async with Observer(deep, "node").serving(service):
        assert await asyncio.to_thread(ask, deep, "node", "/healthz") == (200, b"ok\n")
    assert not socket_of(deep, "node").exists()


def open_folder(path: Path) -> int:
    import os

    return os.open(path, os.O_PATH | os.O_DIRECTORY)


@pytest.mark.parametrize("address", ["127.0.0.1:9464", "[::1]:9464", "localhost:0", "127.8.9.1:1"])
def test_an_address_of_this_machine_alone_is_taken(address: str) -> None:
    assert check_address(address, anywhere=False)[1] == int(address.rpartition(":")[2])


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "[::]:9464", "10.0.0.5:9464", "example.org:9464", "0:9464"])
def test_an_address_that_others_reach_is_refused_unless_it_is_said(address: str) -> None:
    with pytest.raises(AddressNotAllowedError):
        check_address(address, anywhere=False)
    assert check_address(address, anywhere=True)


@pytest.mark.parametrize("address", ["", "9464", ":9464", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "a:１"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is not HOST:PORT"):
        check_address(address, anywhere=True)
