"""Files and devices: what is not the job's, in every direction."""

import os
import subprocess

from .registry import attack, reaches_kernel


@attack()
def read_shadow(job):
    """reads /etc/shadow"""
    return open("/etc/shadow").read()


@attack()
def climb_out(job):
    """climbs out of its data folder by ../"""
    return open(job.data + "/../../../../etc/shadow").read()


@attack()
def read_other_dataset(job):
    """reads another dataset of the same owner, by its path"""
    return open(job.targets["dataset"]).read()


@attack(conceded="T1")
def see_other_dataset(job):
    """asks whether another dataset's file exists"""
    return os.stat(job.targets["dataset"]).st_size


@attack()
def read_node_keys(job):
    """reads the node's signing key"""
    return open(job.targets["key"], "rb").read()


@attack()
def follow_link_out(job):
    """lays a symbolic link to /etc/shadow into its scratch and reads it"""
    os.symlink("/etc/shadow", job.tmp + "/link")
    return open(job.tmp + "/link").read()


@attack()
def rename_into_data(job):
    """moves a file of its own into its data folder"""
    open(job.tmp + "/mine", "w").close()
    os.rename(job.tmp + "/mine", job.data + "/mine")
    return True


@attack()
def write_data(job):
    """writes to the data it reads"""
    with open(job.data + "/data.parquet", "r+b") as file:
        return file.write(b"x")


@attack()
def truncate_data(job):
    """truncates the data it reads"""
    os.truncate(job.data + "/data.parquet", 0)
    return True


@attack()
def chmod_data(job):
    """changes the mode of its data"""
    os.chmod(job.data + "/data.parquet", 0o777)
    return True


@attack()
def utime_data(job):
    """changes the time of its data, which the owner would see"""
    os.utime(job.data + "/data.parquet", (1, 1))
    return True


@attack()
def xattr_data(job):
    """hangs an attribute on its data"""
    os.setxattr(job.data + "/data.parquet", "user.mark", b"7531.25")
    return True


@attack()
def link_data(job):
    """makes a hard link to its data in its scratch"""
    os.link(job.data + "/data.parquet", job.tmp + "/kept")
    return True


@attack()
def write_code(job):
    """changes its own code, for the rounds to come"""
    with open(job.app + "/pyproject.toml", "a") as file:
        return file.write("x")


@attack()
def write_runtime(job):
    """leaves a module in the runtime, for the jobs to come"""
    import flwr

    with open(os.path.dirname(flwr.__file__) + "/implanted.py", "w") as file:
        return file.write("x")


@attack()
def write_usr(job):
    """writes below /usr"""
    with open("/usr/implanted", "w") as file:
        return file.write("x")


@attack(only="landlock")
def execute_own_file(job):
    """copies a program into its scratch and runs it"""
    with open("/usr/bin/true", "rb") as source, open(job.tmp + "/program", "wb") as target:
        target.write(source.read())
    os.chmod(job.tmp + "/program", 0o755)
    return subprocess.run([job.tmp + "/program"], check=False).returncode == 0


@attack(only="landlock", conceded="T3")
def list_root(job):
    """lists the root folder"""
    return os.listdir("/")


@attack()
def list_homes(job):
    """lists the homes of this machine's users"""
    return os.listdir("/root") + os.listdir("/home")


@attack()
def other_sessions(job):
    """lists the sessions of other jobs"""
    return os.listdir("/run/keyong-sessions")


@attack(only="landlock", conceded="T3")
def read_loadavg(job):
    """reads /proc/loadavg: how busy the others are"""
    return open("/proc/loadavg").read()


@attack(only="landlock", conceded="T3")
def read_mounts(job):
    """reads its mount table, which names paths of the host"""
    return open("/proc/self/mountinfo").read()


@attack(conceded="T1", alone=True)
def read_cgroup(job):
    """reads its control group's name, which tells one company's machine or container from another's"""
    with open("/proc/self/cgroup") as file:
        found = file.read()
    return found if any(line.split(":", 2)[2].strip("/\n") for line in found.splitlines()) else ""


@attack(only="landlock")
def read_boot_id(job):
    """reads the machine's boot id, which tells one company's machine from another's"""
    return open("/proc/sys/kernel/random/boot_id").read()


@attack()
def read_machine_id(job):
    """reads the machine's id"""
    return open("/etc/machine-id").read()


@attack()
def read_sys(job):
    """reads /sys"""
    return open("/sys/kernel/uevent_seqnum").read()


@attack()
def write_cgroup(job):
    """moves itself out of its cgroup"""
    for place in ("/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs"):
        try:
            with open(place, "w") as file:
                return file.write("0")
        except FileNotFoundError:
            continue
    raise FileNotFoundError


@attack()
def write_core_pattern(job):
    """names a program of its own as the machine's handler of crashes, which runs as root"""
    with open("/proc/sys/kernel/core_pattern", "w") as file:
        return file.write("|/tmp/program")


@attack()
def press_sysrq(job):
    """presses the magic key"""
    with open("/proc/sysrq-trigger", "w") as file:
        return file.write("h")


@attack()
def read_memory_device(job):
    """opens the memory and the virtual machine devices"""
    for device in ("/dev/mem", "/dev/kmem", "/dev/kvm", "/dev/vda", "/dev/sda"):
        try:
            return os.open(device, os.O_RDONLY)
        except OSError as error:
            last = error
    raise last


@attack(conceded="T3")
def make_device(job):
    """makes a device of its own"""
    os.mknod(job.tmp + "/device", 0o60666, os.makedev(254, 0))
    return True


@attack(only="seccomp", conceded="T3")
def open_by_handle(job):
    """opens a file by its number, past every path"""
    return reaches_kernel((304, 265), -1, 0, 0)


@attack()
def host_shared_memory(job):
    """reads shared memory of a process of the host by its name"""
    return open("/dev/shm/" + job.targets["shared"]).read()


@attack()
def leave_for_the_next(job):
    """finds what an earlier job left in /tmp or /dev/shm, and leaves something itself"""
    kept = ("program", "link", "mine", "left-by-a-job")
    found = [name for name in os.listdir(job.tmp) if name in kept and not job.batch]
    if job.tmp == "/tmp":
        found += [name for name in os.listdir("/dev/shm") if name.startswith("left")]
        open("/dev/shm/left-by-a-job", "w").close()
    open(job.tmp + "/left-by-a-job", "w").close()
    return found
