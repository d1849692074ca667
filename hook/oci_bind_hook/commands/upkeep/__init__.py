# SPDX-License-Identifier: Apache-2.0
"""The records of containers: listed, compared with the machine, and undone if their containers are dead."""
