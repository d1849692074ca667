# SPDX-License-Identifier: Apache-2.0
"""The state file of each container: what was done for it, and the folder and locks of these files.

Loaded by every start of a container: import only posix, errno, stat and time.
"""
