# SPDX-License-Identifier: Apache-2.0
"""How engines find the hook: registrations are written, removed, read and checked. Also what a machine lacks."""
