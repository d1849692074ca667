# SPDX-License-Identifier: Apache-2.0
"""The container's rootfs, which is not trusted: resolves paths in it, admits destinations, creates mount points.

Loaded by every start of a container: import only posix, errno and stat. Most of it runs after setns(2), when nothing
can be imported.
"""
