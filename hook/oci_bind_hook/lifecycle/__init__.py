# SPDX-License-Identifier: Apache-2.0
"""The order of steps when a container starts, and after it has ended.

Loaded by every start of a container: import nothing beyond posix, errno and stat.
"""
