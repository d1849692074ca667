# SPDX-License-Identifier: Apache-2.0
"""How engines find the hook: registrations written, removed, read and judged, and what a machine lacks."""
