#!/bin/sh
# namespace_init.sh ROOT [SOURCE TARGET]...: becomes systemd, process 1 of the Debian below ROOT.
# Runs as the first process of mount, pid, uts, ipc and cgroup namespaces of its own. Each SOURCE of this machine is to
# be seen, read-only, at TARGET in there.
set -eu
root=$1
shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
# The kernel is this machine's: its settings are not the box's to change.
mount --bind -o ro /proc/sys "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/shm" "$root/dev/pts" "$root/run/machine"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
while [ $# -ge 2 ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
    shift 2
done
cd "$root"
pivot_root . run/machine
umount -l run/machine
rmdir run/machine
# `container` tells systemd to leave the hardware alone.
exec env -i container=namespace PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
