# SPDX-License-Identifier: Apache-2.0
"""What is asked for: binds by config.json, --mount and annotations. The file system is never looked at.

Loaded by every start of a container: no other module at all.
"""
