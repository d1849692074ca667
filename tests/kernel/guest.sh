#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# In the virtual machine, after tests/kernel/initrd.sh: what an init mounts and loads, then the tests. Their results
# leave on the third disk, as a tar.
set -u
export PATH=/project/.venv/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs tmp /var/tmp
mount --make-rshared /
# Runtimes execute themselves by /dev/fd.
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
for module in fuse overlay loop autofs4 veth; do
    busybox modprobe "$module"
done
busybox ifconfig lo up
busybox hostname guest
# Debian's 5.10 denies users what later ones allow.
[ ! -e /proc/sys/kernel/unprivileged_userns_clone ] || echo 1 >/proc/sys/kernel/unprivileged_userns_clone

ulimit -n 20000  # as tests/conftest.py wants

results=/run/results
mkdir "$results"
cd /project || exit
echo "Linux $(uname -r), $(python --version), $(runc --version | head -n 1), $(crun --version | head -n 1)"
eval "arguments=($(cat .arguments))"
# -v: if the machine dies, the last line is all that is known.
PATIENCE=6 pytest -v -p no:cacheprovider --numprocesses=1 --junit-xml="$results/report.xml" \
    "${arguments[@]}" 2>&1 | tee "$results/output"
echo "${PIPESTATUS[0]}" >"$results/status"
tail -n 1 "$results/output" | sed "s/^=* //; s/ =*$//" >"$results/counts"
tar -C "$results" -cf /dev/vdc .
sync
busybox poweroff -f
