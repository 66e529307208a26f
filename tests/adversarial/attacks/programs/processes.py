"""Other processes: the node's, another job's, the session's own first one."""

import ctypes
import os
import signal

from .registry import attack, libc, reaches_kernel


@attack(only="seccomp")
def ptrace_parent(job):
    """traces its parent"""
    return reaches_kernel((101, 117), 0x4206, os.getppid(), 0, 0)  # PTRACE_SEIZE: a parent that stopped could not go on


@attack(only="seccomp")
def read_by_vm(job):
    """reads the node's memory by process_vm_readv"""
    return reaches_kernel((310, 270), job.targets["pid"], 0, 0, 0, 0, 0)


@attack()
def read_by_mem_file(job):
    """reads the memory of a process of the host by /proc/PID/mem"""
    return os.open(f"/proc/{job.targets['pid']}/mem", os.O_RDONLY)


@attack(conceded="T1", only="pid-namespace")
def see_host_process(job):
    """asks whether a process of the host is there"""
    return os.stat(f"/proc/{job.targets['pid']}").st_uid >= 0


@attack()
def kill_host_process(job):
    """signals a process of the host"""
    os.kill(job.targets["pid"], 0)
    return True


@attack(only="seccomp")
def take_descriptor(job):
    """takes an open file out of another process"""
    return reaches_kernel((438, 438), -1, 0, 0)


@attack(only="empty-environment")
def environment(job):
    """finds a secret in the environment that the node was started with"""
    names = set(os.environ)
    try:
        with open("/proc/self/environ", "rb") as file:
            names |= {entry.split(b"=")[0].decode() for entry in file.read().split(b"\0") if entry}
    except PermissionError:  # of a child of the session's first process
        pass
    return sorted(names & {job.targets["variable"], "KEYONG_LEAK", "KEYONG_HOME"})


@attack()
def first_environment(job):
    """reads what the session's first process was started with, beside its own"""
    with open("/proc/1/environ", "rb") as file:
        return job.targets["variable"].encode() in file.read() or (job.tmp != "/tmp" and "another process")


@attack()
def first_command_line(job):
    """reads the command line of process 1 for paths of the host"""
    with open("/proc/1/cmdline", "rb") as file:
        return job.targets["home"].encode() in file.read()


@attack(only="close-descriptors")
def inherited_descriptor(job):
    """reads a file that the node had open"""
    for number in range(4, 256):
        try:
            if b"7531.25-of-the-node" in os.pread(number, 64, 0):
                return number
        except OSError:
            continue
    return None


@attack(only="seccomp", alone=True, conceded="T3")
def outlive_supervisor(job):
    """clears the death signal that ends it with its supervisor"""
    kept = ctypes.c_int()
    libc.prctl(1, 0, 0, 0, 0)
    libc.prctl(2, ctypes.byref(kept), 0, 0, 0)
    return kept.value != signal.SIGKILL


@attack()
def daemon_outlives(job):
    """leaves a process behind that leads a session of its own"""
    if os.fork() == 0:
        os.setsid()
        for number in range(1, 65):
            if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
                signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            signal.pause()
        os._exit(0)
    return job.leaves("a process")


@attack()
def become_root(job):
    """becomes root by setuid, or by a program that has it"""
    os.setuid(0)
    return True


@attack(only="seccomp", conceded="T3")
def real_time(job):
    """asks for real-time scheduling with every flag; the kernel must not even look"""
    return reaches_kernel((144, 119), 0, 1, 0)


@attack(conceded="T3")
def raise_priority(job):
    """takes the processor from others by a higher priority"""
    return os.nice(-5) < 0


@attack()
def raise_limit(job):
    """raises its own bounds"""
    import resource

    resource.setrlimit(resource.RLIMIT_NPROC, (1 << 20, 1 << 20))
    return True


@attack(only="bounds")
def many_files(job):
    """opens two thousand files"""
    kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(2000)]
    for one in kept:
        os.close(one)
    return len(kept)
