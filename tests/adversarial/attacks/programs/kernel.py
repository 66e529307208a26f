"""Calls by which a sandbox is left, or the kernel reached where it is thin."""

import ctypes
import mmap
import os
import signal

from .registry import COLUMN, attack, libc, reaches_kernel


@attack(only="seccomp", conceded="T3")
def user_namespace(job):
    """makes a user namespace, in which it would be root"""
    return reaches_kernel((272, 97), -1)


@attack(only="seccomp", conceded="T3")
def user_namespace_by_clone(job):
    """the same by clone, with flags that the kernel refuses only after looking at them"""
    return reaches_kernel((56, 220), 0x10000000 | signal.SIGCHLD | 0x10000, 0, 0, 0, 0)


@attack()
def user_namespace_by_clone3(job):
    """the same by clone3, whose flags no filter can see"""
    arguments = (ctypes.c_uint64 * 11)(0x10000000, 0, 0, 0, signal.SIGCHLD)
    found = libc.syscall(ctypes.c_long(435), arguments, ctypes.c_size_t(88))
    if found == 0:
        os._exit(0)
    return found > 0


@attack(only="seccomp")
def mount(job):
    """mounts"""
    return reaches_kernel((165, 40), -1, 0, 0, 0, 0)


@attack(only="seccomp")
def mount_by_new_calls(job):
    """mounts by the newer calls: fsopen, open_tree, move_mount"""
    return any(reaches_kernel((number, number), -1, 0, 0, 0, 0) for number in (428, 429, 430, 442))


@attack()
def pivot_root(job):
    """changes its root"""
    return libc.syscall(ctypes.c_long((155, 41)[COLUMN]), b"/tmp", b"/tmp") == 0


@attack()
def chroot(job):
    """changes its root by chroot"""
    os.chroot(job.tmp)
    return True


@attack(only="seccomp", conceded="T3")
def setns(job):
    """enters a namespace of the host"""
    return reaches_kernel((308, 268), -1, 0)


@attack(only="seccomp", conceded="T3")
def io_uring(job):
    """does its calls by io_uring, past the filter"""
    return reaches_kernel((425, 425), -1, 0)


@attack(only="seccomp")
def bpf(job):
    """loads a program into the kernel"""
    return reaches_kernel((321, 280), -1, 0, 0)


@attack(only="seccomp", conceded="T3")
def perf(job):
    """watches the processor's counters"""
    return reaches_kernel((298, 241), 0, 0, 0, -1, 0)


@attack(only="seccomp", conceded="T3")
def keyring(job):
    """reads the kernel's keyrings"""
    return any(reaches_kernel(numbers, -1, 0, 0, 0, 0) for numbers in ((250, 219), (248, 217), (249, 218)))


@attack(only="seccomp")
def userfaultfd(job):
    """stops the kernel in the middle of a copy"""
    return reaches_kernel((323, 282), -1)


@attack(only="seccomp", conceded="T3")
def personality(job):
    """switches address randomisation off"""
    return reaches_kernel((135, 92), 0xFFFFFFFF)


@attack(only="seccomp", conceded="T3")
def sysv_memory(job):
    """makes System V shared memory, queues and semaphores"""
    return any(reaches_kernel(numbers, -1, 0, 0) for numbers in ((29, 194), (64, 190), (68, 186)))


@attack()
def host_sysv_memory(job):
    """attaches the System V shared memory of a process of the host"""
    return libc.shmget(job.targets["shm_key"], 0, 0) >= 0


@attack()
def kernel_log(job):
    """reads the kernel's log"""
    return reaches_kernel((103, 116), -1, 0, 0)


@attack(only="seccomp")
def set_clock(job):
    """sets the clock by which agreements end"""
    return reaches_kernel((164, 170), -1, -1) or reaches_kernel((227, 112), -1, 0)


@attack()
def reboot(job):
    """restarts the machine"""
    return libc.syscall(ctypes.c_long((169, 142)[COLUMN]), 0, 0, 0, 0) == 0


@attack()
def load_module(job):
    """loads a kernel module"""
    return libc.syscall(ctypes.c_long((175, 105)[COLUMN]), None, 0, b"") == 0


@attack(only="seccomp", conceded="T3")
def memory_file(job):
    """makes a memory file, which no limit sees"""
    return reaches_kernel((319, 279), b"hidden", 0)


@attack(only="seccomp", conceded="T3")
def page_cache(job):
    """asks which pages of a file others have read"""
    return reaches_kernel((27, 232), 0, 0, 0) or reaches_kernel((451, 451), -1, 0, 0, 0)


@attack(only="seccomp", conceded="T3")
def push_into_terminal(job):
    """types into the owner's terminal"""
    ctypes.set_errno(0)
    return libc.ioctl(0, 0x5412, b"x") == 0 or ctypes.get_errno() != 1


@attack(codes="app-exception")
def x32_call(job):
    """calls the kernel by the x32 numbers, which a careless filter does not know"""
    return COLUMN == 0 and libc.syscall(ctypes.c_long(0x40000000 | 39)) >= 0


@attack(only="seccomp", codes="app-exception")
def old_gate(job):
    """calls the kernel by the 32-bit gate, whose numbers are others"""
    if COLUMN:
        return False
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))() > 0


@attack(only="seccomp", conceded="T3")
def stall_disks(job):
    """stalls every disk of the machine by sync"""
    return reaches_kernel((306, 267), -1) or reaches_kernel((162, 81))


@attack(only="seccomp", conceded="T3")
def read_sysinfo(job):
    """asks the kernel how busy the machine is and how much memory is free: what another job does shows in it"""
    return reaches_kernel((99, 179), ctypes.create_string_buffer(256))


@attack()
def rename_host(job):
    """gives the machine another name"""
    libc.sethostname(b"canary", 6)
    return os.uname().nodename == "canary"
