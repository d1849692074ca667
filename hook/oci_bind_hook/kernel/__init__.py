# SPDX-License-Identifier: Apache-2.0
"""System calls, procfs, capabilities, and the meaning of errnos: the only code that can break memory safety.

Loaded by every start of a container: import only posix, sys, errno and the C modules behind ctypes and prctl.
"""
