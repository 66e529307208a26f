"""First program of a session: closes it with Landlock and limits, tries forbidden acts, and only then runs the job.

Runs as process 1 of the session under ``python -I -S``, before any code of a job, and imports as little as it can: each
session starts it. Not imported by the trusted side.

Arguments: the channel's descriptor, then items ``kind=value`` (``abi``, ``limit``, ``rx``, ``r``, ``rw``, ``dev``, ``ls``,
``path``, ``skip``, and ``uid`` at T1 alone, where there are no namespaces), ``--``, and the job's own arguments to Python.
"""

import _ctypes  # not ctypes: that costs a session more time than all the rest here
import os
import sys

REPORT = 64  # bytes of the one line that the trusted side reads before it hands the session out

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1, 2, 4, 8, 1 << 14
ALL_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
MAKE_DEVICE = (1 << 6) | (1 << 11) | (1 << 15)  # character and block devices, and ioctl on them
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
SOCKET, SOCKETPAIR, PRCTL, PRLIMIT = (41, 198), (53, 199), (157, 167), (302, 261)

# Calls that must fail whatever their arguments: numbers on x86_64 and on aarch64.
CALLS = {
    "unshare": (272, 97),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "setns": (308, 268),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "userfaultfd": (323, 282),
    "open_by_handle_at": (304, 265),
    "personality": (135, 92),
    "shmget": (29, 194),
    "syslog": (103, 116),
    "mknodat": (259, 33),
    "pidfd_getfd": (438, 438),
    "memfd_create": (319, 279),
    "setuid": (105, 146),
    "sched_setscheduler": (144, 119),
}

SECRET = (
    "/etc/shadow",
    "/proc/loadavg",
    "/proc/sys/kernel/core_pattern",
    "/proc/self/mountinfo",
    "/sys/kernel",
    "/run/keyong-sessions",
    "/",
)


class Refused(Exception):
    """A forbidden act succeeded or a layer is missing; the text is its name."""


class Word(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = Word


_syscall = Function(_ctypes.dlsym(_ctypes.dlopen(None, 0), "syscall"))  # type: ignore[arg-type]


def syscall(number: int, *arguments: "int | bytes | None") -> int:
    """Return the result of a system call, -1 on failure; bytes are passed as a pointer to them."""
    return int(_syscall(*(Word(value) if isinstance(value, int) else value for value in (number, *arguments))))


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, sys.byteorder) for value in values)


def restrict(items: "list[tuple[str, str]]", required: int) -> int:
    """Apply Landlock to this process and return the version applied; raise where the kernel has less than required."""
    abi = syscall(CREATE_RULESET, None, 0, 1)
    if abi < required:
        raise Refused("landlock-abi")
    handled = ALL_RIGHTS[max(known for known in ALL_RIGHTS if known <= abi)]
    fields = [handled]
    if abi >= 4:
        fields.append(3)  # TCP bind and connect
    if abi >= 6:
        fields.append(3)  # abstract sockets and signals out of the session
    attributes = words(*fields)
    ruleset = syscall(CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        raise Refused("landlock-ruleset")
    read = READ_FILE | READ_DIR
    rights = {
        "rx": read | EXECUTE,
        "r": read,
        "rw": handled & ~MAKE_DEVICE & ~EXECUTE,
        "dev": READ_FILE | WRITE_FILE,
        "ls": READ_DIR,
    }
    for kind, path in items:
        if kind not in rights:
            continue
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = rights[kind] & handled
        if not os.path.isdir(path):
            allowed &= FILE_RIGHTS
        rule = allowed.to_bytes(8, sys.byteorder) + place.to_bytes(4, sys.byteorder)
        if syscall(ADD_RULE, ruleset, 1, rule, 0) != 0:
            raise Refused("landlock-rule")
        os.close(place)
    if syscall(RESTRICT_SELF, ruleset, 0) != 0:
        raise Refused("landlock-restrict")
    os.close(ruleset)
    return abi


def opens(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags, 0o600))
    except OSError:
        return False
    return True


def probe_files(items: "list[tuple[str, str]]") -> None:
    """Raise where a file can be reached that must not be."""
    for path in SECRET:
        if opens(path, os.O_RDONLY):
            raise Refused("read " + path)
    places = [path for kind, path in items if kind in ("rx", "r") and not path.startswith("/proc")]
    for path in ("/", "/dev", *filter(os.path.isdir, places)):
        if opens(path + "/canary", os.O_WRONLY | os.O_CREAT):
            raise Refused("write " + path)
    if opens("/proc/sys/kernel/core_pattern", os.O_WRONLY):
        raise Refused("write core_pattern")
    for kind, path in items:
        if kind == "rw" and os.listdir(path):
            raise Refused("leftover " + path)


def probe_calls(namespaces: bool) -> None:
    """Raise where a system call passes that must not; without a network namespace, neither may any local socket."""
    column = 0 if os.uname().machine == "x86_64" else 1
    for name, numbers in CALLS.items():
        _ctypes.set_errno(0)
        # A refusal by the filter is EPERM or ENOSYS; any other errno means that the kernel looked at the arguments.
        if syscall(numbers[column], -1, 0, 0, 0, 0, 0) >= 0 or _ctypes.get_errno() not in (1, 38):
            raise Refused("call " + name)
    for family in (
        (2, 10, 16, 17, 40) if namespaces else (1, 2, 10, 16, 17, 40)
    ):  # local, IPv4, IPv6, netlink, packet...
        for kind in (1, 2, 3):
            if syscall(SOCKET[column], family, kind, 0) >= 0:
                raise Refused(f"socket {family}")
    if not namespaces and syscall(SOCKETPAIR[column], 1, 2, 0, bytes(8)) == 0:  # a datagram pair can be connected anew
        raise Refused("datagram pair")
    if syscall(PRCTL[column], 4, 0, 0, 0, 0) == 0:
        raise Refused("call prctl")


def probe_self(own: "int | None") -> None:
    """Raise where this process has more than it should: privileges, neighbours, descriptors, groups, a network.

    ``own`` is the session's uid where that does the part of namespaces.
    """
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file if ":" in line)
    if any(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")):
        raise Refused("capabilities")
    if status["NoNewPrivs"].strip() != "1" or status["Seccomp"].strip() != "2":
        raise Refused("seccomp")
    if len(os.listdir("/proc/self/task")) != 1:
        raise Refused("threads")
    if own is None:
        probe_namespaces()
    elif {*os.getresuid(), *os.getresgid()} != {own} or os.getgroups():
        raise Refused("identity")
    if {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, 3, 4}:
        raise Refused("descriptors")


def probe_namespaces() -> None:
    """Raise where this process is not alone in its namespaces."""
    if os.getpid() != 1 or os.getppid() != 0:
        raise Refused("pid namespace")
    if os.uname().nodename != "job" or os.getuid() != 65534 or os.getgid() != 65534:
        raise Refused("identity")
    with open("/proc/self/net/dev") as file:
        if [line.split(":")[0].strip() for line in file if ":" in line] not in ([], ["lo"]):
            raise Refused("network namespace")


def probe_gvisor(items: "list[tuple[str, str]]") -> None:
    """Raise where the kernel is not gVisor's, or this process has or reaches more than it should."""
    if not os.path.exists("/proc/sentry-meminfo"):
        raise Refused("gvisor")
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file if ":" in line)
    if any(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd")):
        raise Refused("capabilities")
    probe_namespaces()
    if {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, 3, 4}:
        raise Refused("descriptors")
    for path in ("/etc/shadow", "/run/keyong-sessions", "/root", "/home", "/var", "/sys/kernel/uevent_seqnum"):
        if opens(path, os.O_RDONLY):
            raise Refused("read " + path)
    places = [path for kind, path in items if kind in ("rx", "r")]
    for path in ("/", "/dev", "/etc", *filter(os.path.isdir, places)):
        if opens(path + "/canary", os.O_WRONLY | os.O_CREAT):
            raise Refused("write " + path)
    for kind, path in items:
        if kind == "rw" and os.listdir(path):
            raise Refused("leftover " + path)


def enclose(descriptor: int, *, close: bool = True) -> None:
    """Leave the channel as descriptor 3, a null stdin, and nothing else that was inherited."""
    if descriptor != 3:
        os.dup2(descriptor, 3)
    os.set_inheritable(3, True)
    if close:
        os.closerange(4, 1 << 20)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def run(arguments: "list[str]") -> None:
    """Run ``-m module``, ``-c code`` or a script as Python would, in a fresh ``__main__``; no current directory."""
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    if arguments[0] == "-m":
        import runpy

        sys.argv = ["-m", *arguments[2:]]
        runpy._run_module_as_main(arguments[1])  # type: ignore[attr-defined]
        return
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        source, name = arguments[1], "<string>"
    else:
        sys.argv = arguments
        with open(arguments[0], "rb") as file:
            source, name = file.read(), arguments[0]  # type: ignore[assignment]
        module.__file__ = name
    module.__dict__["__builtins__"] = __builtins__
    exec(compile(source, name, "exec"), module.__dict__)


def main() -> None:
    separator = sys.argv.index("--")
    items = [tuple(item.split("=", 1)) for item in sys.argv[2:separator]]
    column = 0 if os.uname().machine == "x86_64" else 1
    skipped = {value for kind, value in items if kind == "skip"}
    enclose(int(sys.argv[1]), close="close-descriptors" not in skipped)
    own = next((int(value) for kind, value in items if kind == "uid"), None)
    try:
        for kind, value in items:
            if kind == "limit" and "bounds" not in skipped:
                number, bound = map(int, value.split(":"))
                if syscall(PRLIMIT[column], 0, number, words(bound, bound), None) != 0:
                    raise Refused("limit")
        if any(kind == "gvisor" for kind, _ in items):
            skipped |= {"canary", "landlock"}  # both are about the machine's kernel, which is not the job's
            probe_gvisor(items)  # type: ignore[arg-type]
        if "canary" not in skipped:
            probe_self(own)  # reads more of /proc/self than Landlock leaves
        abi = 0
        if "landlock" not in skipped:
            abi = restrict(items, next(int(value) for kind, value in items if kind == "abi"))  # type: ignore[arg-type]
        if "canary" not in skipped:
            probe_calls(own is None)
            probe_files(items)  # type: ignore[arg-type]
    except Refused as refused:
        os.write(3, f"keyong-sandbox/1 refused {refused}".encode().ljust(REPORT)[:REPORT])
        os.read(3, 1)  # the trusted side finds us here, however busy it is, and reads why before it ends us
        os._exit(70)
    os.write(3, f"keyong-sandbox/1 clean {abi}".encode().ljust(REPORT))
    if os.read(3, 1) != b"G":  # the trusted side went away before it took the session over
        os._exit(71)
    # After the standard library, so that nothing of it is shadowed.
    sys.path += [value for kind, value in items if kind == "path"]
    run(sys.argv[separator + 1 :])


if __name__ == "__main__":
    main()
