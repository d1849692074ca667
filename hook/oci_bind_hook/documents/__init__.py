# SPDX-License-Identifier: Apache-2.0
"""Documents that others wrote: from bytes through strict JSON and the bundled schemas to typed values.

Loaded by every start of a container, except for the judge: jsonschema takes ten times as long to import as Python to
start.
"""
