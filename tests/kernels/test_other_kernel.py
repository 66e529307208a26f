"""The sandbox under another kernel, with control groups of version 2 that bound: `make kernel KERNEL=FOLDER`.

The folder is a kernel's package, unpacked: ``boot/vmlinuz-*`` and its modules. The machine is emulated, with this machine's
files under a layer in memory, so that nothing here is changed.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
HERE = Path(__file__).parent
FILES = ("tests/sandbox/test_sandbox_cgroup.py", "tests/sandbox/test_sandbox_limits.py")
MODULES = ("virtio_pci", "9p", "9pnet_virtio", "overlay")
NEEDED = ("qemu-system-x86_64", "busybox", "cpio", "modprobe", "depmod", "setpriv")
SECONDS = 1500

pytestmark = pytest.mark.skipif(
    not os.environ.get("KEYONG_KERNEL"), reason="boots another kernel, needs QEMU and a kernel's package: make kernel"
)


@pytest.fixture
def kernel() -> Path:
    """The unpacked package; its modules in order."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip("not installed: " + ", ".join(missing))
    folder = Path(os.environ["KEYONG_KERNEL"]).resolve()
    if not list(folder.glob("boot/vmlinuz-*")):
        pytest.fail(f"there is no boot/vmlinuz-* in {folder}: unpack a kernel's package there (dpkg -x)")
    if not (folder / "lib").exists():  # as usr/lib where the machine keeps the two as one
        (folder / "lib").symlink_to("usr/lib")
    return folder


def initial_files(kernel: Path, release: str, folder: Path) -> Path:
    """The archive that the kernel starts from: busybox, the modules that reach this machine's files, both scripts."""
    for place in ("bin", "modules", "proc", "sys", "dev", "below", "layer", "root"):
        (folder / place).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", folder / "bin/busybox")
    subprocess.run(["depmod", "-b", kernel, release], check=True)
    order: list[str] = []
    for module in MODULES:
        needs = subprocess.run(
            ["modprobe", "-d", kernel, "-S", release, "--show-depends", module],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for line in needs.splitlines():
            if not line.startswith("insmod "):
                continue  # built in
            file = Path(line.split()[1])
            name = file.name.removesuffix(".xz")
            if name not in order:
                order.append(name)
                data = file.read_bytes()
                (folder / "modules" / name).write_bytes(lzma.decompress(data) if file.suffix == ".xz" else data)
    (folder / "order").write_text("".join(f"{name}\n" for name in order))
    shutil.copy(HERE / "init.sh", folder / "init")
    (folder / "init").chmod(stat.S_IRWXU)
    inside = (HERE / "inside.sh").read_text().replace("TREE", str(TREE)).replace("FILES", " ".join(FILES))
    (folder / "inside.sh").write_text(inside)
    names = "\n".join(str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))
    made = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=folder, input=names.encode(), capture_output=True, check=True
    )
    archive = folder.with_suffix(".cpio")
    archive.write_bytes(made.stdout)
    return archive


def test_limits_hold_where_version_2_is_delegated(kernel: Path, tmp_path: Path) -> None:
    (image,) = kernel.glob("boot/vmlinuz-*")
    archive = initial_files(kernel, image.name.removeprefix("vmlinuz-"), tmp_path / "initial")
    command = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "4096", "-smp", "2", "-nographic", "-no-reboot",
        "-kernel", str(image), "-initrd", str(archive), "-append", "console=ttyS0 quiet panic=1 rdinit=/init",
        "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
    ]  # fmt: skip
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False).stdout
    told = [
        line.removeprefix("INSIDE ")
        for line in said.decode(errors="replace").splitlines()
        if line.startswith("INSIDE ")
    ]
    print("\n".join(told), file=sys.stderr)
    assert told[-1:] == ["end"], said[-2000:]
    for who, skipped in (("0", 0), ("65534", 1)):  # an ordinary user's sessions have no uid of their own
        ends = [line for line in told if line.startswith(f"{who} ") and re.search(r"\d+ passed", line)]
        assert len(ends) == 1
        assert "failed" not in ends[0]
        assert "error" not in ends[0]
        assert int((re.search(r"(\d+) skipped", ends[0]) or [0, 0])[1]) == skipped, (
            "each was bounded by a group of its own"
        )
