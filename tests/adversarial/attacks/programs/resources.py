"""Taking what others need, or time without end."""

import mmap
import os
import signal
import sys
import threading
import time

from .registry import attack


@attack("limit", codes="limit-processes", only="supervisor")
def fork_bomb(job):
    """forks as often as it can"""
    while job.goes_on():
        try:
            if os.fork() == 0:
                time.sleep(99)
        except OSError:
            time.sleep(0.01)


@attack("limit", codes="limit-processes", only="supervisor", bounded="T3")
def thread_bomb(job):
    """starts threads as often as it can"""
    started = 0
    while job.goes_on():
        try:
            threading.Thread(target=time.sleep, args=(99,), daemon=True).start()
            started += 1
        except RuntimeError:
            time.sleep(0.01)
    job.had("resources.thread_bomb", started)


@attack("limit", codes="limit-memory", only="supervisor")
def memory_bomb(job):
    """takes memory piece by piece, in several processes"""
    os.fork()
    kept = []
    while job.goes_on():
        if len(kept) < 300:
            kept.append(bytearray(b"x" * 2**20))
        else:
            time.sleep(0.01)


@attack("limit", codes="limit-memory", only="supervisor")
def shared_memory_bomb(job):
    """takes memory that no process alone is charged for"""
    kept = []
    while job.goes_on():
        if len(kept) < 400:
            kept.append(mmap.mmap(-1, 2**20))
            kept[-1].write(b"x" * 2**20)
        else:
            time.sleep(0.01)


@attack("limit", codes="limit-disk", only="supervisor", bounded="T3", slow=True)
def fill_disk(job):
    """fills its scratch"""
    written = 0
    with open(job.tmp + "/fill", "wb", buffering=0) as file:
        while job.goes_on():
            try:
                written += file.write(bytes(1 << 20))
            except OSError:
                time.sleep(0.01)
    job.had("resources.fill_disk", written)


@attack("limit", codes="limit-disk", only="supervisor", conceded="T3", slow=True)
def fill_inodes(job):
    """makes files without end"""
    number = 0
    while job.goes_on():
        number += 1
        if number < 150_000:
            os.close(os.open(f"{job.tmp}/{number}", os.O_CREAT | os.O_WRONLY))
        else:
            time.sleep(0.01)


@attack("limit", codes="limit-output", only="supervisor")
def flood_output(job):
    """writes to the owner's logs without end"""
    written = 0
    while job.goes_on():
        if written < 64 << 20:
            written += sys.stdout.write("x" * 65536)
        else:
            time.sleep(0.01)


@attack("limit", codes="limit-wall", only="clock")
def hang(job):
    """never answers, deaf to every signal"""
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while job.goes_on():
        time.sleep(0.05)


@attack("limit", codes="limit-wall", only="clock")
def spin(job):
    """spins"""
    while job.goes_on():
        pass
