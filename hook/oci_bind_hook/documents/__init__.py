# SPDX-License-Identifier: Apache-2.0
"""Foreign documents: from bytes through strict JSON and the bundled schemas to typed values.

Loaded by every start of a container, except the judge: importing jsonschema takes ten times as long as starting
Python.
"""
