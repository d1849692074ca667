# SPDX-License-Identifier: Apache-2.0
"""What the kernel is asked: system calls, procfs, and what its errors mean. The only unsafe place.

Loaded by every start of a container: nothing beyond os, errno and the C modules behind ctypes and prctl.
"""
