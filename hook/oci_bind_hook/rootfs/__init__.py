# SPDX-License-Identifier: Apache-2.0
"""The rootfs, which strangers wrote: where a path leads in it, what may be covered, and mount points made in it.

Loaded by every start of a container: nothing beyond os, errno and stat.
"""
