"""Starts a session's processes from the calling thread and gathers what is known of them.

The calling thread matters: it gets a mount table of its own (as root), may no longer gain privileges, and its end
ends the session (the parent-death signal follows the thread). So the thread that supervises a session starts it.
"""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

from sandbox import _bubblewrap, _kernel, _launcher, _seccomp, _staging
from sandbox._attest import attest
from sandbox._gvisor import start_gvisor
from sandbox._identity import Identity, allot_identity
from sandbox._meter import Meter
from sandbox._own_uid import start_own_uid
from sandbox._started import (
    START_SECONDS,
    Started,
    cannot,
    end_process,
    first_process,
    join_group,
    last_words,
    make_group,
    memory_file,
    reap,
)
from sandbox._subprocess import start_subprocess
from sandbox.spec import Evidence, SessionSpec, Tier

_PASSWD = b"job:x:65534:65534:job:/tmp:/usr/sbin/nologin\n"
_GROUP = b"job:x:65534:\n"
CGROUP = "/proc/1/cgroup"
"""What the first process sees of its control group; the real one names the service and the container. Others see none."""
_THP = "/sys/kernel/mm/transparent_hugepage"
HUGE_PAGES = {f"{_THP}/enabled": b"always [madvise] never\n", f"{_THP}/hpage_pmd_size": b"2097152\n"}
"""What glibc looks for as a session starts; without it, it asks for no huge pages. The same on every machine: a kernel that
has none, or gives them anyway, takes no notice of being asked."""


def start(spec: SessionSpec, *, without: frozenset[str] = frozenset()) -> Started:
    """Start a session's processes and check, from inside and from outside, that they are isolated.

    Args:
        spec: what is asked for.
        without: layers left out, by tests alone; no caller outside of this package can pass it.

    Raises:
        SandboxError: a layer is missing, or a forbidden act succeeded; nothing is left running.
    """
    if spec.tier is Tier.T0:
        return start_subprocess(spec, without=without)
    if spec.tier is Tier.T1:
        return start_own_uid(spec, without=without)
    if spec.tier is Tier.T3:
        return start_gvisor(spec, without=without)
    program = _bubblewrap.find_bubblewrap()
    machine = _kernel.check_kernel()
    with ExitStack() as undo:
        identity = allot_identity() if os.geteuid() == 0 and "own-uid" not in without else None
        if identity is not None:
            undo.callback(identity.release)
        started = _spawn(spec, program.path, _seccomp.build_filter(machine), identity, undo, without)
        undo.pop_all()
    return started


def _spawn(
    spec: SessionSpec,
    program: Path,
    filter_program: bytes,
    identity: Identity | None,
    undo: ExitStack,
    without: frozenset[str],
) -> Started:
    prefix, inner_python = _bubblewrap.locate_python(spec.runtime.python)
    mounts = tuple((mount.source.absolute(), mount.target) for mount in spec.mounts)
    places = _bubblewrap.Places(spec.runtime.path.absolute(), prefix, mounts)
    for source in (places.runtime, *(source for source, _target in places.mounts)):
        _staging.check_source(source, by_others=identity is not None)
    launcher_source = _launcher.SOURCE.read_bytes()
    inner_path, content = _launcher.launcher_file(launcher_source, inner_python)
    masked = _bubblewrap.masked_places(inner_python)
    launcher = _bubblewrap.launcher_arguments(spec, prefix, _kernel.LANDLOCK_ABI, without=without)
    with ExitStack() as inherited:  # closed here once the child has its own
        files = {
            inner_path: inherited.enter_context(memory_file(content)),
            "/etc/passwd": inherited.enter_context(memory_file(_PASSWD)),
            "/etc/group": inherited.enter_context(memory_file(_GROUP)),
            CGROUP: inherited.enter_context(memory_file(b"0::/\n")),
            **{place: inherited.enter_context(memory_file(content)) for place, content in HUGE_PAGES.items()},
        }
        channel, inner_channel = socket.socketpair()
        undo.callback(channel.close)
        inherited.callback(inner_channel.close)
        info_read, info_write = os.pipe()
        inherited.callback(os.close, info_read)
        info = inherited.enter_context(open(info_write, "wb"))
        reached = places
        if identity is not None:
            try:
                reached = _staging.stage(places, read_only="read-only" not in without)
                _kernel.drop_bounding_set()
            except OSError as error:
                raise cannot("root without its capabilities", error) from None
        options = _bubblewrap.arguments(spec, reached, masked, files, without=without)
        passed = [*files.values(), inner_channel.fileno(), info.fileno()]
        command = ["bwrap", "--info-fd", str(info.fileno())]
        if "seccomp" not in without:
            passed.append(inherited.enter_context(memory_file(filter_program)))
            command += ["--seccomp", str(passed[-1])]
        passed.append(inherited.enter_context(memory_file(os.fsencode("\0".join([*options, ""])))))
        command += ["--args", str(passed[-1]), "--", inner_python, "-I", "-S", inner_path]
        _kernel.forbid_new_privileges()
        monitor = _popen(program, [*command, str(inner_channel.fileno()), *launcher], passed, identity, without)
        undo.callback(reap, monitor)
        inner_channel.close()
        info.close()
        init, handle = first_process(info_read, monitor, "bubblewrap", START_SECONDS)
    undo.callback(end_process, handle)
    group = join_group(spec, init, make_group(undo, without))
    # While the session starts: what it was started by, with roles in the place of the host's paths.
    roles = _bubblewrap.Places(
        Path("<runtime>"),
        None if prefix is None else Path("<python>"),
        tuple((Path(f"<mount {target}>"), target) for _source, target in places.mounts),
    )
    named = dict.fromkeys(("/sandbox/launch.py", "/etc/passwd", "/etc/group", CGROUP, *HUGE_PAGES), 0)
    options = _bubblewrap.arguments(spec, roles, masked, named, without=without)
    digest = _bubblewrap.arguments_digest(options, launcher, inner_python, launcher_source)
    abi = _confirm(channel, monitor, init, identity, without)
    evidence = Evidence(
        tier=Tier.T2,
        kernel=os.uname().release,
        landlock_abi=abi,
        seccomp_digest=_seccomp.filter_digest(filter_program),
        arguments_digest=digest,
        limits_by="cgroup" if group else "supervisor",
        runtime_digest=spec.runtime.digest,
    )
    try:
        meter = Meter(init, ("/tmp", "/dev/shm", *spec.scratch))
    except OSError:  # over already
        raise cannot("launcher", last_words(monitor)) from None
    return Started(monitor, init, handle, channel, identity, evidence, meter, group=group)


def _confirm(
    channel: socket.socket,
    monitor: subprocess.Popen[bytes],
    init: int,
    identity: Identity | None,
    without: frozenset[str],
) -> int:
    """Return the Landlock version, once the session is found isolated by its own word and by a look from outside."""
    try:
        abi = _launcher.await_report(channel, START_SECONDS)
        if "attest" not in without:
            attest(init, identity.uid if identity else None)
    except TimeoutError as error:
        raise cannot("launcher", error) from None
    except (EOFError, OSError):
        raise cannot("launcher", last_words(monitor)) from None
    return abi


def _popen(
    program: Path, command: list[str], passed: list[int], identity: Identity | None, without: frozenset[str]
) -> subprocess.Popen[bytes]:
    """Start bubblewrap with an empty environment, no descriptor but ``passed``, and the session's own identity."""
    uid = None if identity is None else identity.uid
    for descriptor in passed if "close-descriptors" in without else ():
        os.set_inheritable(descriptor, True)
    try:
        return subprocess.Popen(
            command,
            executable=program,
            env={"KEYONG_LEAK": "1"} if "empty-environment" in without else {},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            close_fds="close-descriptors" not in without,
            pass_fds=passed if "close-descriptors" not in without else (),
            start_new_session=True,
            umask=0o022,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
    except OSError as error:
        raise cannot("bubblewrap", error) from None
