# SPDX-License-Identifier: Apache-2.0
"""What a person calls. No start of a container loads any of it, so slow modules are welcome here."""
