"""The node as a witness of other members' ledgers, and its own ledger before theirs."""

from __future__ import annotations

import asyncio
import base64

import structlog

from enterprise_node.acceptance import Acceptances
from federation.errors import UnavailableError, UsageError
from federation.home import Home, now
from federation.keyring import witness_name
from federation.ledger import Ledger, Witness, WitnessRefusedError
from federation.peer_times import PeerTimes
from federation.wire.messages import WitnessAnswer, WitnessAsk
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.peer import Incoming, Outgoing, Peer
from federation.witnessing import WITNESSED_SINCE, Witnessing, log_key

log = structlog.get_logger("keyong.witness")


class Attestation:
    """Cosigns what others' ledgers sign, and has ours cosigned.

    Args:
        acceptances: say which members the owner accepted: only their witnesses are asked.
        times: where what witnesses say of the time is noted.
    """

    def __init__(self, home: Home, ledger: Ledger, acceptances: Acceptances, times: PeerTimes | None = None) -> None:
        self._home = home
        self._ledger = ledger
        self._acceptances = acceptances
        self._times = times
        identity = home.identity
        name = witness_name(identity.consortium, identity.member)
        self._witness = Witness(name, home.key("witness"), home.folder("witnessed"), now)

    async def add(self, peer: Peer, message: Incoming) -> Outgoing:
        """Answer a request for a cosignature that the coordinator carried here."""
        return Outgoing((await asyncio.to_thread(self._answer, message.header)).to_bytes())

    def _answer(self, header: bytes) -> WitnessAnswer:
        try:
            request = base64.b64decode(WitnessAsk.from_bytes(header).request, validate=True)
        except ValueError:
            raise UsageError("a request to a witness is malformed", code="witness-request") from None
        roster = self._home.history.latest
        try:
            line = self._witness.add_checkpoint(request, lambda origin: log_key(roster, origin))
        except WitnessRefusedError as error:
            log.warning("not-cosigned", status=error.status, reason=str(error))
            return WitnessAnswer(status=error.status, body="" if error.size is None else f"{error.size}\n")
        except OSError:
            raise UnavailableError("this witness cannot keep what it saw, so it signs nothing") from None
        return WitnessAnswer(status=200, body=line.decode())

    async def last(self, peer: Peer, message: Incoming) -> Outgoing:
        """Show the last checkpoint of a ledger that was cosigned here, to whoever has the coordinator ask."""
        asked = WitnessAsk.from_bytes(message.header).request
        try:
            origin = base64.b64decode(asked, validate=True).decode()
        except ValueError:
            raise UsageError("a request to a witness is malformed", code="witness-request") from None
        note = await asyncio.to_thread(self._witness.last_note, origin)
        answer = WitnessAnswer(status=200 if note else 404, body=base64.b64encode(note or b"").decode())
        return Outgoing(answer.to_bytes())

    async def run(self, peer: Peer) -> None:
        """Show each new state of our ledger to the witnesses, as long as the link lives; a coordinator of before carries none."""
        if peer.version < WITNESSED_SINCE:
            await peer.ended()
            return

        async def ask(member: str, request: bytes) -> tuple[int, bytes]:
            header = WitnessAsk(witness=member, request=base64.b64encode(request).decode()).to_bytes()
            answer = WitnessAnswer.from_bytes((await peer.call("witness.ask", header, timeout=ANSWER_SECONDS)).header)
            return answer.status, answer.body.encode()

        async def last(member: str) -> bytes:
            origin = base64.b64encode(self._ledger.origin.encode()).decode()
            header = WitnessAsk(witness=member, request=origin).to_bytes()
            found = WitnessAnswer.from_bytes((await peer.call("witness.last", header, timeout=ANSWER_SECONDS)).header)
            return base64.b64decode(found.body)

        clock = asyncio.get_running_loop().time
        await Witnessing(self._home, self._ledger, ask, self._acceptances.members, clock, last, self._times).run()
