# SPDX-License-Identifier: Apache-2.0
"""The container's rootfs, which is not trusted: resolving paths in it, what may be covered, making mount points.

Loaded by every start of a container: only posix, errno and stat. Most of it runs after setns(2), when nothing
can be imported any more.
"""
