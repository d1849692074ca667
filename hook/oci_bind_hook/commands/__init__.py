# SPDX-License-Identifier: Apache-2.0
"""The commands that people call. No start of a container loads any of them, so slow modules may be imported here."""
