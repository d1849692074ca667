# SPDX-License-Identifier: Apache-2.0
"""The dry-run: what a real run would do for a bundle, and all problems that it would have."""
