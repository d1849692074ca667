# SPDX-License-Identifier: Apache-2.0
"""Documents of others: bytes to strict JSON, judged by the bundled schemas, as typed values.

Loaded by every start of a container, but for the judge: jsonschema costs ten times the start of Python.
"""
