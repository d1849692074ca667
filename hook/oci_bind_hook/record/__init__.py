# SPDX-License-Identifier: Apache-2.0
"""What was done for each container: the state file, its folder and its locks.

Loaded by every start of a container: nothing beyond os, errno, stat and time.
"""
