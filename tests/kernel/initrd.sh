#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The first process of the virtual machine: mounts the root, lays the project over it and starts tests/kernel/guest.sh.
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in virtio_pci virtio_blk crc32c_generic ext4; do
    modprobe "$module"
done
mount -t ext4 -o noatime,nobarrier /dev/vda /new
find /new/project -mindepth 1 -maxdepth 1 ! -name '.venv*' -exec rm -rf {} +
tar -C /new -xf /dev/vdb
mount --move /dev /new/dev
umount /proc /sys
exec switch_root /new /project/tests/kernel/guest.sh
