# SPDX-License-Identifier: Apache-2.0
"""From requests to mounts, and back: sources held by fd, the plan, the plan carried out, a record undone.

Loaded by every start of a container: nothing beyond posix, errno and stat.
"""
