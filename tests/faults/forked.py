"""Forked commands whose disk can be made to fail, or that can be killed at an exact system call.

The fault library is loaded and can be armed at any moment. Nothing else differs from a command that a person typed, but
for the canary of the sandbox, which runs once a cycle of these tests would make them last for minutes (tests/sandbox
runs it).
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.faults import injection
from tests.integration import parties
from tests.integration.forkserver import Forked, ForkServer, Request
from tests.integration.parties import WAIT_SECONDS, Service, environment

_server: ForkServer | None = None
_library = ""


def begin() -> bool:
    """Start the process that all others are forked from, once; whether faults can be injected."""
    global _server, _library
    if _server is None:
        folder = Path(tempfile.mkdtemp(prefix="keyong-faults-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _library = str(injection.build(folder) or "")
        _server = ForkServer(**environment(**({"LD_PRELOAD": _library} if _library else {})))
    return bool(_library)


def can_inject() -> bool:
    """Whether faults can be injected: the library was built."""
    return bool(_library)


def prepare(control: str = "") -> None:
    """In the forked process: no canary, and faults where there are any."""
    import coordinator.service
    import enterprise_node.service
    from sandbox import Tier

    for service in (coordinator.service, enterprise_node.service):
        service.prove_tier = lambda floor, **_: Tier.T2  # type: ignore[attr-defined]
    if control:
        injection.join(os.environ["KEYONG_TEST_FAULTLIB"], control)


class ForkedService(Service):
    """A forked command that goes on, with a fault armed from its first instruction on where one is given."""

    process: Forked

    def __init__(self, party: ForkedParty, log: Path, arguments: tuple[str | Path, ...], form: str, fault: Any) -> None:
        self._control: injection.Control | None = None
        env: dict[str, str] = {}
        prepare = ["tests.faults.forked:prepare"]
        if _library:
            self._control = injection.Control(log.with_suffix(".faults"))
            env["KEYONG_TEST_FAULTLIB"] = _library
            prepare.append(str(self._control.path))
            if fault is not None:
                self._control.arm(fault)
        request = party.request(*arguments, form=form, env=env)
        super().__init__(lambda err: party.fork(replace(request, prepare=prepare), err), log)

    @property
    def faults(self) -> injection.Control:
        """Its faults."""
        assert self._control is not None, injection.NO_COMPILER
        return self._control

    def first_of(self, *names: str) -> None:
        """Wait until it has told one of these events."""
        with self._changed:
            found = self._changed.wait_for(lambda: any(one.get("event") in names for one in self.events), WAIT_SECONDS)
        assert found, self.text

    def died(self, seconds: float) -> bool:
        """Wait at most so long for its end; whether it ended."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


class ForkedParty(parties.ForkedParty):
    """A party whose commands are forked.

    Args:
        env: what its commands see of the environment, beside what every command sees.
    """

    service: ForkedService | None

    def __init__(self, folder: Path, name: str, env: Mapping[str, str]) -> None:
        super().__init__(folder, name)
        self.env = {"HOME": str(folder), **env}

    @classmethod
    def server(cls) -> ForkServer:
        """What commands are forked from."""
        begin()
        assert _server is not None
        return _server

    def request(self, *arguments: str | Path, form: str, env: Mapping[str, str] | None = None) -> Request:
        """The command line and its environment."""
        plain = super().request(*arguments, form=form, env={**self.env, **(env or {})})
        return replace(plain, prepare=["tests.faults.forked:prepare"])

    def start(self, *arguments: str | Path, form: str = "json", fault: injection.Fault | None = None) -> ForkedService:
        """Start a command that goes on, with a fault armed from its first instruction on where one is given."""
        begin()
        return ForkedService(self, self._log(), arguments, form, fault)

    def serve(self, *arguments: str | Path, until: str) -> ForkedService:
        """Start this party's service and wait for its event."""
        self.service = self.start(*arguments)
        self.service.wait_for(until)
        return self.service
