"""Links over loopback: who may hold one, what it carries, and how it ends."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
from typing import Any

import pytest

from federation.crypto import GRPC_CIPHER_SUITES, TlsIdentity
from federation.errors import KeyongError, VerificationError
from federation.ledger import LedgerRolledBackError
from federation.wire import listen
from federation.wire.dial import UnreachableError, keep_attached
from federation.wire.listen import AddressError
from federation.wire.peer import Incoming, LinkLostError, Outgoing, Peer
from federation.wire.protocol import ProtocolVersionError, check_version, negotiate


async def test_a_member_calls_and_is_called(hub: Any) -> None:
    async def mine(peer: Peer, message: Incoming) -> Outgoing:
        return Outgoing(message.header + b" back")

    async with hub.dial(hub.member("mill"), handler=mine) as peer:
        assert (await peer.call("x", b"there", timeout=30)).header == b"there"
        (other,) = hub.peers
        assert other.member == "mill"
        assert (await other.call("x", b"and", timeout=30)).header == b"and back"


async def test_a_strangers_certificate_is_refused(hub: Any) -> None:
    hub.member("mill")
    with pytest.raises(UnreachableError):
        async with hub.dial(TlsIdentity.generate("mill"), timeout=1.5):
            pass
    assert not hub.peers


async def test_without_the_trusted_set_a_stranger_still_fails_at_the_roster(hub: Any) -> None:
    """Two checks stand one behind the other: the handshake, and who the certificate belongs to."""
    stranger = hub.member("mill")
    who, hub.who = hub.who, lambda fingerprint: (_ for _ in ()).throw(VerificationError("a stranger"))
    hub.listener._who = hub.who
    async with hub.dial(stranger) as peer:
        with pytest.raises((UnreachableError, LinkLostError)):  # refused at once, or cut before it was answered
            await peer.call("x", b"", timeout=30)
    hub.listener._who = who
    async with hub.dial(stranger) as peer:  # with both taken away, it is served
        assert (await peer.call("x", b"in", timeout=30)).header == b"in"


async def test_another_coordinators_certificate_is_refused(hub: Any) -> None:
    identity = hub.member("mill")
    hub.identity = TlsIdentity.generate("hub")  # what the dialler expects; the listener still shows the first
    with pytest.raises(UnreachableError):
        async with hub.dial(identity, timeout=1.5):
            pass


def _handshake(hub: Any, version: ssl.TLSVersion, folder: Any) -> str | None:
    identity = hub.members["mill"]
    (folder / "key.pem").write_bytes(identity.key_pem)
    (folder / "crt.pem").write_bytes(identity.certificate_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(folder / "crt.pem", folder / "key.pem")
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    host, _, port = hub.address.target.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as plain, context.wrap_socket(plain) as link:
        return link.version()


async def test_tls_1_2_is_refused(hub: Any, tmp_path: Any) -> None:
    hub.member("mill")
    assert await asyncio.to_thread(_handshake, hub, ssl.TLSVersion.TLSv1_3, tmp_path) == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(_handshake, hub, ssl.TLSVersion.TLSv1_2, tmp_path)
    assert "RSA" in GRPC_CIPHER_SUITES  # what refuses it: tests/federation/crypto shows 1.2 pass without this setting


def test_a_process_that_would_take_tls_1_2_does_not_listen() -> None:
    """gRPC reads its suites when it is imported: whoever imports it first has lost TLS 1.3 alone, and is told."""
    program = (
        "import sys\n"
        "{first}\n"
        "from federation.wire.credentials import listening\n"
        "from federation.crypto import TlsIdentity\n"
        "listening(TlsIdentity.generate('hub'), tuple)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    for first, works in (("import grpc", False), ("import json", True)):
        command = [sys.executable, "-c", program.format(first=first)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is works, done.stderr
        assert ("LateSuitesError" in done.stderr) is not works


async def test_a_removed_member_is_cut_at_once_and_does_not_come_back(hub: Any) -> None:
    identity = hub.member("mill")
    async with hub.dial(identity) as peer:
        await peer.call("x", b"", timeout=30)
        del hub.members["mill"]
        for other in list(hub.peers):
            hub.listener.cut(other)
        assert await peer.ended(30)
        with pytest.raises(UnreachableError):
            await peer.call("x", b"", timeout=30)
    with pytest.raises(UnreachableError):
        async with hub.dial(identity, timeout=1.5):
            pass


async def test_a_link_is_cut_while_its_first_answer_is_on_its_way(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC says late that a frame was taken: what is cut before that has sent its metadata, and must not send it again."""
    written = asyncio.Event()

    class Written(Peer):
        async def _write_out(self) -> None:
            frame = await self._outbox.get()
            sending = asyncio.ensure_future(self._send_frame(frame))
            await asyncio.sleep(0)  # gRPC has it, and was not heard of since
            written.set()
            await sending

    monkeypatch.setattr(listen, "Peer", Written)
    async with hub.dial(hub.member("mill")) as peer:
        asking = asyncio.create_task(peer.call("x", b"", timeout=30))
        await written.wait()
        for other in list(hub.peers):
            hub.listener.cut(other)
        assert await peer.ended(30)
        await asyncio.gather(asking, return_exceptions=True)


async def test_without_the_cut_a_removed_member_would_go_on(hub: Any) -> None:
    async with hub.dial(hub.member("mill")) as peer:
        await peer.call("x", b"", timeout=30)
        hub.members.clear()
        assert (await peer.call("x", b"still here", timeout=30)).header == b"still here"


@pytest.mark.parametrize("mib", [100, pytest.param(400, marks=pytest.mark.long)])
async def test_a_model_crosses_both_ways_with_bounded_memory(hub: Any, mib: int) -> None:
    """Both ends are in this process, and at no moment do they hold more than 64 MiB of it beside its file."""
    piece = bytes(2**20)

    async def back(peer: Peer, message: Incoming) -> Outgoing:
        size = sum(len(message.body[at : at + 2**20]) for at in range(0, len(message.body), 2**20))
        return Outgoing(str(size).encode(), [piece] * (size >> 20))

    hub.handler = back
    async with hub.dial(hub.member("mill")) as peer:
        await peer.call("x", b"", [piece], timeout=30)
        with Highest() as highest:
            answer = await peer.call("x", b"", [piece] * mib, timeout=60)
    assert answer.header == str(mib << 20).encode() and len(answer.body) == mib << 20
    assert highest.grown < 64 * 2**20, f"{highest.grown >> 20} MiB of heap for {mib} MiB"


class Highest:
    """How far this process's own memory grows while it is looked at."""

    def __enter__(self) -> Highest:
        self._before, self.grown, self._over = _own_memory(), 0, threading.Event()
        self._watching = threading.Thread(target=self._watch)
        self._watching.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.grown = max(self.grown, _own_memory() - self._before)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watching.join()


def _own_memory() -> int:
    with open("/proc/self/status") as file:
        anonymous = next(line for line in file if line.startswith("RssAnon"))
    return int(anonymous.split()[1]) * 1024


async def test_a_slow_reader_slows_its_sender_over_grpc(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the hub reads nothing, the sender stops within flow control's window; then all of it arrives."""
    release = asyncio.Event()

    class Held(Peer):
        async def _read(self) -> None:
            await release.wait()
            await super()._read()

    monkeypatch.setattr(listen, "Peer", Held)
    async with hub.dial(hub.member("mill")) as peer:
        sent = 0
        half = asyncio.Event()
        plain = peer._send_frame

        async def counting(frame: Any) -> None:
            nonlocal sent
            await plain(frame)
            sent += 1
            if sent > 32:
                half.set()

        peer._send_frame = counting
        call = asyncio.create_task(peer.call("x", b"", [bytes(2**20)] * 64, timeout=60))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(half.wait(), 1.5)
        release.set()
        assert len((await call).body) == 64 * 2**20 and sent == 65


async def test_links_of_one_member_are_bounded(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "LINKS_A_MEMBER", 1)
    identity = hub.member("mill")
    async with hub.dial(identity) as first:
        await first.call("x", b"", timeout=30)
        async with hub.dial(identity) as second:
            with pytest.raises(LinkLostError):
                await second.call("x", b"", timeout=30)
        assert (await first.call("x", b"ok", timeout=30)).header == b"ok"


async def test_malformed_frames_end_the_link_with_a_code_and_the_hub_serves_on(hub: Any) -> None:
    from federation.wire._generated.link_pb2 import Frame, Head

    identity = hub.member("mill")
    async with hub.dial(identity) as peer:
        await peer._write(Frame(exchange=2, open=Head(method="x")))  # an even number: the hub's own
        assert await peer.ended(60)
        with pytest.raises(KeyongError) as refused:
            await peer.call("x", b"", timeout=30)
        assert refused.value.code == "link-refused"
    async with hub.dial(identity) as peer:
        assert (await peer.call("x", b"ok", timeout=30)).header == b"ok"


async def test_an_address_in_use_says_so(hub: Any) -> None:
    from federation.wire.listen import Listener

    other = Listener(
        hub.address.target,
        hub.identity,
        trusted=tuple,
        who=hub.who,
        handler=hub.handle,
        on_link=hub.on_link,
        body_limit=1,
        spool=hub.folder,
    )
    hub.member("mill")
    with pytest.raises(AddressError):
        await other.start()


async def test_a_link_is_held_through_whatever_the_other_end_says(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from federation.wire import dial

    monkeypatch.setattr(dial, "FIRST_WAIT_SECONDS", 0.01)
    identity = hub.member("mill")
    told: list[str] = []
    reached = asyncio.Event()
    turns = iter([VerificationError("a roster that does not follow", code="roster-chain"), ValueError("odd"), None])

    async def session(peer: Peer) -> None:
        error = next(turns)
        if error is not None:
            raise error
        reached.set()
        await peer.ended()

    holding = asyncio.create_task(
        keep_attached(
            lambda: hub.dial(identity), session, on_down=lambda error: told.append(error.code), jitter=random.Random(1)
        )
    )
    async with asyncio.timeout(60):
        await reached.wait()
    assert told == ["roster-chain", "internal"]
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


async def test_a_broken_ledger_of_our_own_does_end_it(hub: Any) -> None:
    identity = hub.member("mill")

    async def session(peer: Peer) -> None:
        raise LedgerRolledBackError("rolled back")

    with pytest.raises(LedgerRolledBackError):
        await keep_attached(lambda: hub.dial(identity), session, on_down=lambda error: None, jitter=random.Random(1))


def test_versions_are_agreed_on_or_the_side_to_upgrade_is_named() -> None:
    assert negotiate((1, 2), (2, 3)) == 2 and negotiate((1, 1), (1, 2)) == 1
    with pytest.raises(ProtocolVersionError) as old:
        negotiate((1, 1), (2, 3))
    assert old.value.hint == "upgrade the member"
    with pytest.raises(ProtocolVersionError) as new:
        negotiate((4, 5), (2, 3))
    assert new.value.hint == "upgrade the coordinator"
    with pytest.raises(ProtocolVersionError) as chosen:
        check_version(99)
    assert chosen.value.hint == "upgrade the member"
