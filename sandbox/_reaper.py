"""The parent of a session without a pid namespace (T1, T0): starts its first process and leaves nobody of it behind.

A program of its own with the standard library alone; trusted. It plays the part that a pid namespace's end plays at T2: when
the first process ends, or the trusted process that started this one goes away (its end of the control pipe closes), every
process of the session is killed and reaped.

At T1 it runs as root, out of reach of a job (another uid), and the session is whoever has the session's uid. At T0 it runs as
the service's own user, and the session is whoever descends from it: orphans come to it (``PR_SET_CHILD_SUBREAPER``), so a
process that leads a session of its own is found like any other. That holds honest code together; code that means to escape
does so at T0, as it can do everything else there.

Arguments: uid (-1 at T0), descriptors of control pipe, information pipe, filter and the uid's lock (-1: none), working
directory, number of environment variables, those, then the program and its arguments. With ``kill UID`` alone: kill what is
left of a uid. The lock is only held: no new session may get a uid under which this one still kills.
"""

import ctypes
import json
import os
import select
import signal
import sys

libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 1, 22, 24, 36
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
CAPABILITY_VERSION = 0x20080522
LOWEST_UID = 100_000  # a session's uid is never one of the system's or of a person's
KILLER_OFFSET = 1 << 12  # as in _identity.RANGES: the uids behind those that are handed out are never anybody's
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}


class Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def prctl(option: int, *arguments: object) -> None:
    padded = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in (*arguments, 0, 0, 0, 0)][:4]
    if libc.prctl(option, *padded) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def become(uid: int, filter_fd: int) -> None:
    """Give up root for good: no group, no capability in any set, no way to gain one, the death signal, the filter."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        prctl(PR_CAPBSET_DROP, capability)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    if libc.syscall(ctypes.c_long(SYS_CAPSET[os.uname().machine]), header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if filter_fd >= 0:
        content = os.read(filter_fd, 1 << 20)
        os.close(filter_fd)
        prctl(PR_SET_SECCOMP, 2, ctypes.byref(Program(len(content) // 8, content)))


def survivors(uid: int) -> "list[int]":
    """Processes of the uid that are not dead yet."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/status", encoding="latin-1") as file:
                status = dict(line.split(":", 1) for line in file if line.startswith(("State", "Uid")))
        except OSError:
            continue
        if str(uid) in status["Uid"].split() and status["State"].split()[0] not in "ZX" and int(name) != os.getpid():
            found.append(int(name))
    return found


def descendants() -> "list[int]":
    """Processes below this one that are not dead yet."""
    parents = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="latin-1") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            parents[int(name)] = int(fields[1])
    found = []
    for process in parents:
        above = parents.get(process)
        while above is not None and above != os.getpid():
            above = parents.get(above)
        if above is not None:
            found.append(process)
    return found


def kill_descendants() -> None:
    """Kill and reap every process below this one, until none is left."""
    while True:
        for process in descendants():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        reap_children()
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        select.select([], [], [], 0.001)


def kill_uid(uid: int) -> None:
    """Kill every process of the uid and reap those that are ours, until none is left.

    ``kill(-1)`` misses nobody, however fast they fork. It hits whoever has a real or saved uid that is the killer's real
    or effective one: so the killer's effective uid is the session's, and its real one that of nobody at all. No process
    of the session can then signal it first, and it can hit no other.
    """
    nobody = uid + KILLER_OFFSET
    if uid < LOWEST_UID:
        raise ValueError("not a session's uid")
    while True:
        killer = os.fork()
        if killer == 0:
            try:
                os.setgroups([])
                os.setresuid(nobody, uid, nobody)
                if os.getresuid() == (nobody, uid, nobody):
                    os.kill(-1, signal.SIGKILL)
            finally:
                os._exit(0)
        os.waitpid(killer, 0)
        reap_children()
        if not survivors(uid):
            return
        select.select([], [], [], 0.001)


def reap_children(first: int = 0) -> "int | None":
    """Take the status of whoever has ended (orphans of the job come to us); return that of process ``first``."""
    found = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == first:
                found = ended[1]
    except ChildProcessError:
        pass
    return found


def start(uid: int, filter_fd: int, directory: str, environment: "dict[str, str]", command: "list[str]") -> int:
    """Fork the session's first process and return its pid; it waits for nobody."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        os.umask(0o022)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if uid < 0:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        else:
            become(uid, filter_fd)
        os.chdir(directory)
        os.execve(command[0], command, environment)
    except OSError as error:
        os.write(2, f"{error.strerror or 'failed'}: {command[0]}\n".encode())
    os._exit(70)


def main() -> None:
    if sys.argv[1] == "kill":
        kill_uid(int(sys.argv[2]))
        return
    uid, control, info, filter_fd, lock = (int(value) for value in sys.argv[1:6])
    directory, count = sys.argv[6], int(sys.argv[7])
    environment = dict(item.split("=", 1) for item in sys.argv[8 : 8 + count])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the trusted process is told by the control pipe
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    for descriptor in (control, info, lock):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    child = start(uid, filter_fd, directory, environment, sys.argv[8 + count :])
    with open(info, "w") as file:
        json.dump({"child-pid": child}, file)
    # The job's channel is among what is closed here: its other end must see the job's end.
    kept = sorted({2, control, max(2, lock)})
    for first, last in zip(kept, [*kept[1:], 1 << 16], strict=True):
        os.closerange(first + 1, last)
    died, told = os.pipe()
    for descriptor in (died, told):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(told)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        status = reap_children(child)
        if status is not None:
            break
        if control in select.select([control, died], [], [])[0]:
            status = signal.SIGKILL
            break
        os.read(died, 1 << 16)
    if uid < 0:
        kill_descendants()
        if select.select([control], [], [], 0)[0]:  # nobody else is left to remove the session's temporary files
            import shutil

            shutil.rmtree(os.path.dirname(directory), ignore_errors=True)
    else:
        kill_uid(uid)
    sys.exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


if __name__ == "__main__":
    main()
