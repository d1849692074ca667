# SPDX-License-Identifier: Apache-2.0
"""The dry-run: what would be done for a bundle, and every problem that the real run would meet."""
