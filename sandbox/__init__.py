"""Isolation of job code: a session sees what it is given, nothing else, and reaches the outside through one channel.

>>> from sandbox import Runtime, SessionSpec, open_session
>>> runtime = Runtime(Path("/srv/runtime"), digest="sha256:...")
>>> with open_session(SessionSpec(runtime, ("-c", "import os; os.write(3, b'hello')"))) as session:
...     session.channel.recv(5)
b'hello'
"""

from sandbox._own_uid import clear_leftovers
from sandbox.canary import CanaryReport, prove_tier, run_canary
from sandbox.container import ContainerKind, find_container
from sandbox.errors import SandboxError
from sandbox.orphans import end_orphans
from sandbox.probe import Layer, Report, probe
from sandbox.session import Session, open_session
from sandbox.spec import Ending, Evidence, Limits, Mount, Runtime, SessionSpec, Tier

__all__ = [
    "CanaryReport",
    "ContainerKind",
    "Ending",
    "Evidence",
    "Layer",
    "Limits",
    "Mount",
    "Report",
    "Runtime",
    "SandboxError",
    "Session",
    "SessionSpec",
    "Tier",
    "clear_leftovers",
    "end_orphans",
    "find_container",
    "open_session",
    "probe",
    "prove_tier",
    "run_canary",
]
