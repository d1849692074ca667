# SPDX-License-Identifier: Apache-2.0
"""An OCI runtime hook that bind-mounts into a container's rootfs, and takes the mounts down again."""

__version__ = "0.1.0"
