# SPDX-License-Identifier: Apache-2.0
"""What is recorded, whether it is still so, and what the dead left behind, undone."""
