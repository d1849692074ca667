# SPDX-License-Identifier: Apache-2.0
"""From requests to mounts and back: opens sources, makes a plan, carries it out, and undoes a record.

Loaded by every start of a container: import nothing beyond posix, errno and stat.
"""
