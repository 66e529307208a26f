"""Forbidden acts, tried for real inside a session: each returns whether it succeeded, which it never may.

Runs inside only, as a job's program. Each act has a process of its own, for some are punished by death. The result goes
over the channel as JSON: name to ``blocked`` or ``succeeded``. Arguments: names of acts to try; none means all.

Their targets on the host come by environment: ``CANARY_PID``, ``CANARY_PORT``, ``CANARY_ABSTRACT``, ``CANARY_DATAGRAM``,
``CANARY_PATH``; ``CANARY_NAMESPACES`` is empty at T1, where the session's own uid does their part.
"""

import ctypes
import errno
import json
import mmap
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from calls import FORBIDDEN  # type: ignore[import-not-found]

libc = ctypes.CDLL(None, use_errno=True)
TMP = os.environ["TMPDIR"]
NAMESPACES = bool(os.environ["CANARY_NAMESPACES"])
DATA = os.path.dirname(os.path.abspath(__file__))
COLUMN = 0 if os.uname().machine == "x86_64" else 1

ACTS: dict[str, Callable[[], object]] = {}


def act(function: Callable[[], object]) -> Callable[[], object]:
    ACTS[function.__name__.replace("_", " ")] = function
    return function


def expect(name: str, function: Callable[[], object]) -> None:
    """Add an act that succeeds by not raising ``OSError``."""

    def attempt() -> bool:
        function()
        return True

    ACTS[name] = attempt


def reaches_kernel(number: int, *arguments: object) -> bool:
    """Whether a system call passes the filter: EPERM and ENOSYS are refusals, all else is the call itself."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *arguments)
    return result >= 0 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS)


def read(path: str) -> Callable[[], object]:
    return lambda: os.read(os.open(path, os.O_RDONLY), 1)


def create(path: str) -> Callable[[], object]:
    return lambda: os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)


def write(path: str) -> Callable[[], object]:
    return lambda: os.open(path, os.O_WRONLY)


for place in (
    "/etc/shadow", "/data/../../etc/shadow", "/etc/machine-id", "/etc/resolv.conf", "/proc/loadavg", "/proc/meminfo",
    "/proc/self/mountinfo", "/proc/kallsyms", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/random/boot_id",
    "/sys/kernel/uevent_seqnum", "/dev/mem", "/dev/kvm", "/dev/vda", "/proc/1/task/1/mountinfo",
):  # fmt: skip
    expect(f"read {place}", read(place))
for place in ("/", "/sys/fs/cgroup", "/proc", "/root", "/home", "/var", "/run", "/run/keyong-sessions"):
    expect(f"list {place}", lambda place=place: os.listdir(place))  # type: ignore[misc]
for place in ("/", "/usr", "/usr/bin", "/runtime", "/runtime/site-packages", "/dev", "/etc", "/sandbox", "/proc", DATA):
    expect(f"create in {place}", create(place + "/canary"))
for place in (
    "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/self/oom_score_adj", "/dev/kmsg", "/etc/passwd",
    "/sandbox/launch.py", DATA + "/acts.py",
):  # fmt: skip
    expect(f"write {place}", write(place))

expect("chmod data", lambda: os.chmod(DATA + "/acts.py", 0o777))
expect("utime data", lambda: os.utime(DATA + "/acts.py", (0, 0)))
expect("xattr data", lambda: os.setxattr(DATA + "/acts.py", "user.canary", b"1"))
expect("unlink data", lambda: os.unlink(DATA + "/acts.py"))
expect("rename data", lambda: os.rename(DATA + "/acts.py", DATA + "/acts2.py"))
expect("link data", lambda: os.link(DATA + "/acts.py", TMP + "/linked"))
expect("truncate data", lambda: os.truncate(DATA + "/acts.py", 0))
expect("make a directory in /", lambda: os.mkdir("/canary-directory"))
expect("make a device", lambda: os.mknod(TMP + "/device", 0o60666, os.makedev(254, 0)))
expect("see the host's process", lambda: os.stat(f"/proc/{os.environ['CANARY_PID']}"))
expect("see the host's file", lambda: os.stat(os.environ["CANARY_PATH"]))
expect("kill the host's process", lambda: os.kill(int(os.environ["CANARY_PID"]), 0))
expect("become root", lambda: os.setuid(0))
expect("become the root group", lambda: os.setgid(0))
expect("change groups", lambda: os.setgroups([0]))
expect("raise priority", lambda: os.nice(-5))
expect("schedule in real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
expect("chroot", lambda: os.chroot(TMP))
expect("rename the host", lambda: socket.sethostname("canary"))
expect("execute data", lambda: os.execv(DATA + "/acts.py", ["acts"]))


if NAMESPACES:

    @act
    def learn_the_control_groups_name() -> object:
        """Tells one machine, or container, from another; DuckDB does not start where the file cannot be read."""
        with open("/proc/self/cgroup") as file:
            return [row for row in file if row.split(":", 2)[2].strip("/\n")]


@act
def follow_a_link_out() -> object:
    os.symlink("/etc/shadow", TMP + "/link")
    return open(TMP + "/link").read()


@act
def execute_a_written_file() -> object:
    with open("/usr/bin/true", "rb") as source, open(TMP + "/true", "wb") as target:
        target.write(source.read())
    os.chmod(TMP + "/true", 0o755)
    return subprocess.run([TMP + "/true"], check=False).returncode == 0


for label, family, kind in (
    ("tcp", 2, 1), ("tcp6", 10, 1), ("udp", 2, 2), ("udp6", 10, 2), ("raw", 2, 3), ("netlink", 16, 3),
    ("packet", 17, 3), ("vsock", 40, 1), ("crypto", 38, 5), ("bluetooth", 31, 3), ("can", 29, 3), ("xdp", 44, 3),
    ("sctp", 2, 5),
):  # fmt: skip
    expect(f"socket {label}", lambda family=family, kind=kind: socket.socket(family, kind, 0))  # type: ignore[misc]
expect("connect to the host", lambda: socket.create_connection(("127.0.0.1", int(os.environ["CANARY_PORT"])), 2))
expect("resolve a name", lambda: socket.getaddrinfo("example.com", 443))


def connect(address: str) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(2)
    connection.connect(address)


expect("connect to the host's abstract socket", lambda: connect("\0" + os.environ["CANARY_ABSTRACT"]))


def leave_in_common(place: str) -> None:
    # At T2 both places are the session's own, and what is common lies outside of what it can name.
    path = f"{place}/{'../' if NAMESPACES else ''}{os.environ['CANARY_ABSTRACT']}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)


expect("create in the common /tmp", lambda: leave_in_common("/tmp"))
expect("create in the common /dev/shm", lambda: leave_in_common("/dev/shm"))


@act
def turn_a_pair_to_the_host() -> object:
    ours, _theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return ours.sendto(b"x", "\0" + os.environ["CANARY_DATAGRAM"])


expect("connect to the host's unix socket", lambda: connect(os.environ["CANARY_PATH"]))

for name, numbers in FORBIDDEN.items():
    if (wanted := numbers[COLUMN]) is not None:
        ACTS[f"call {name}"] = lambda number=wanted: reaches_kernel(number, -1, 0, 0, 0, 0, 0)  # type: ignore[misc]


@act
def new_user_namespace_by_clone() -> object:
    return reaches_kernel((56, 220)[COLUMN], 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)


@act
def new_user_namespace_by_clone3() -> object:
    arguments = (ctypes.c_uint64 * 11)(0x10000000, 0, 0, 0, signal.SIGCHLD)
    return reaches_kernel(435, arguments, ctypes.c_size_t(88))


@act
def push_into_a_terminal() -> object:
    ctypes.set_errno(0)
    return libc.ioctl(0, 0x5412, b"x") == 0 or ctypes.get_errno() != errno.EPERM


@act
def raise_a_limit() -> object:
    try:
        resource.setrlimit(resource.RLIMIT_NPROC, (1 << 20, 1 << 20))
    except ValueError:
        return False
    return True


@act
def call_by_x32() -> object:
    return COLUMN == 0 and libc.syscall(ctypes.c_long(0x40000000 | 39)) >= 0


@act
def call_by_32_bit_gate() -> object:
    if COLUMN:
        return False
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))() > 0


@act
def read_the_parent_by_memory_file() -> object:
    return os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY)


@act
def be_more_than_expected() -> object:
    # An ordinary user cannot give up the groups it came with (a container's runtime adds its own one): none has a name
    # inside, and nothing that a session can reach is theirs. As root, the trusted side sees that there are none.
    if set(os.getgroups()) - ({65534} if NAMESPACES else set()) or 0 in (*os.getresuid(), *os.getresgid()):
        return True
    return NAMESPACES and (os.getuid() != 65534 or os.uname().nodename != "job" or os.getppid() != 1)


@act
def find_a_foreign_variable() -> object:
    known = {"PATH", "HOME", "TMPDIR", "LANG", "USER", "LOGNAME", "PWD", "LD_LIBRARY_PATH"}
    known |= {"KEYONG_CHANNEL_FD", "GLIBC_TUNABLES"}
    with open(f"/proc/{os.getppid()}/environ", "rb") as file:
        names = {entry.split(b"=")[0].decode() for entry in file.read().split(b"\0") if entry} | set(os.environ)
    return [name for name in names - known if not name.startswith(("PYTHON", "CANARY_"))]


@act
def find_a_host_path_in_the_command_line() -> object:
    with open(f"/proc/{os.getppid()}/cmdline") as file:
        return os.environ["CANARY_PATH"] in file.read()


@act
def find_foreign_packages() -> object:
    return os.path.isdir("/usr/lib/python3/dist-packages") and os.listdir("/usr/lib/python3/dist-packages")


def attempt(function: Callable[[], object]) -> str:
    """Try one act in a process of its own and say how it ended."""
    child = os.fork()
    if child == 0 and os.getpid() == int(os.environ["CANARY_PID"]):
        os._exit(0)  # a process of ours with the number of the host's would be taken for it
    if child == int(os.environ["CANARY_PID"]):
        os.waitpid(child, 0)
        return attempt(function)
    if child == 0:
        try:
            os._exit(99 if function() else 0)
        except (OSError, ValueError):
            os._exit(0)
        finally:
            os._exit(98)
    try:
        handle = os.pidfd_open(child)
        ended = bool(select.select([handle], [], [], 10)[0])
        os.close(handle)
    except OSError:  # gVisor's older kernels have no such call
        ended = True
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not ended:
        return "hung"
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGSYS, signal.SIGSEGV)
    return "blocked" if killed or os.waitstatus_to_exitcode(status) == 0 else "succeeded"


def first_process() -> dict[str, str]:
    """Acts of the session's first process itself."""
    found = {
        "inherit a descriptor": bool({int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, 3, 4}),
        "find leftovers": bool(os.listdir(TMP) or (NAMESPACES and os.listdir("/dev/shm"))),
    }
    libc.prctl(1, 0, 0, 0, 0)
    kept = ctypes.c_int()
    libc.prctl(2, ctypes.byref(kept), 0, 0, 0)
    found["outlive the supervisor"] = kept.value != signal.SIGKILL
    return {name: "succeeded" if bad else "blocked" for name, bad in found.items()}


def main() -> None:
    result = first_process()
    result.update({name: attempt(function) for name, function in ACTS.items()})
    if sys.argv[1:]:
        result = {name: result[name] for name in sys.argv[1:]}
    with socket.socket(fileno=os.dup(3)) as channel:
        channel.sendall(json.dumps(result).encode())


if __name__ == "__main__":
    main()
