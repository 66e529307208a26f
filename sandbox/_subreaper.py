"""The parent of a T0 session: starts its first process and ends whatever that one started, when it or the service ends.

A program of its own with the standard library alone, run as the service's own user. Orphans of the job come to it
(``PR_SET_CHILD_SUBREAPER``), so a process that leads a session of its own is found like any other. It holds honest code
together; code that means to escape does so at T0, as it can do everything else there.

Arguments: descriptors of control pipe and information pipe, working directory, number of environment variables, those,
then the program and its arguments.
"""

import ctypes
import json
import os
import select
import signal
import sys

libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


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


def reap_children(first: int = 0) -> "int | None":
    """Take the status of whoever has ended; return that of process ``first``."""
    found = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == first:
                found = ended[1]
    except ChildProcessError:
        pass
    return found


def kill_all() -> None:
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


def start(directory: str, environment: "dict[str, str]", command: "list[str]") -> int:
    """Fork the session's first process and return its pid."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        os.umask(0o022)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.chdir(directory)
        os.execve(command[0], command, environment)
    except OSError as error:
        os.write(2, f"{error.strerror or 'failed'}: {command[0]}\n".encode())
    os._exit(70)


def main() -> None:
    control, info = (int(value) for value in sys.argv[1:3])
    count = int(sys.argv[4])
    environment = dict(item.split("=", 1) for item in sys.argv[5 : 5 + count])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the service is told by the control pipe
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit(70)
    for descriptor in (control, info):
        os.set_inheritable(descriptor, False)
    child = start(sys.argv[3], environment, sys.argv[5 + count :])
    with open(info, "w") as file:
        json.dump({"child-pid": child}, file)
    # The job's channel is among what is closed here: its other end must see the job's end.
    for first, last in zip(sorted((2, control)), sorted((control, 1 << 16)), strict=True):
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
    kill_all()
    if select.select([control], [], [], 0)[0]:  # nobody else is left to remove the session's temporary files
        import shutil

        shutil.rmtree(os.path.dirname(sys.argv[3]), ignore_errors=True)
    sys.exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


if __name__ == "__main__":
    main()
