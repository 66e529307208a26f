#!/bin/busybox sh
# First process of the virtual machine: this machine's files, read-only, under a layer in memory; version 2 of control groups;
# then the tests in a group delegated to them, as a service manager delegates one, by root and by an ordinary user.
b=/bin/busybox
for kind in proc sysfs devtmpfs; do
    case $kind in devtmpfs) at=/dev ;; sysfs) at=/sys ;; *) at=/proc ;; esac
    $b mount -t $kind $kind $at
done
while read -r module; do $b insmod "/modules/$module"; done </order
$b mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=512000,ro host /below
$b mount -t tmpfs -o size=75% layer /layer
$b mkdir /layer/above /layer/work
$b mount -t overlay -o lowerdir=/below,upperdir=/layer/above,workdir=/layer/work root /root
for place in proc sys dev; do $b mount --move /$place /root/$place; done
for place in tmp run dev/shm; do
    $b mkdir -p /root/$place
    $b mount -t tmpfs -o mode=1777 memory /root/$place
done
$b chmod 755 /root/run
$b mkdir -p /root/dev/pts /root/sys/fs/cgroup
$b mount -t devpts pts /root/dev/pts
$b mount -t securityfs security /root/sys/kernel/security
$b mount -t cgroup2 groups /root/sys/fs/cgroup
$b ifconfig lo 127.0.0.1 up
echo 1 >/proc/sys/kernel/printk 2>/dev/null || echo 1 >/root/proc/sys/kernel/printk
$b cp /inside.sh /root/run/inside.sh
exec $b switch_root /root /bin/sh /run/inside.sh
