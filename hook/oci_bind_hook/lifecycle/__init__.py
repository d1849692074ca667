# SPDX-License-Identifier: Apache-2.0
"""The order of steps when a container starts, and when it has ended.

Loaded by every start of a container: nothing beyond posix, errno and stat.
"""
