# SPDX-License-Identifier: Apache-2.0
"""Requested binds: of config.json, --mount and annotations. This package never accesses the file system.

Loaded by every start of a container: import no module of the standard library.
"""
