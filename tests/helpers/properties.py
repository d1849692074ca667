# SPDX-License-Identifier: Apache-2.0
"""How hypothesis draws examples: the same ones in every normal run, or, in a search, many new ones.

A normal run draws by the test alone: not by chance, the clock, earlier failures, or what else ran in that process. A
search, ``tests/run --long``, draws anew each time, and more; what it finds becomes an ``@example`` of the property.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

IS_SEARCH = os.environ.get("PROPERTIES") == "search"
FACTOR = 40 if IS_SEARCH else 1


def examples(count: int) -> settings:
    """The settings of a property that draws ``count`` examples in a normal run, and many more in a search."""
    return settings(max_examples=count * FACTOR)


def load() -> None:
    """Makes this the way of drawing for the whole session."""
    settings.register_profile(
        "same" if not IS_SEARCH else "search",
        max_examples=100 * FACTOR,
        derandomize=not IS_SEARCH,
        database=None,
        # A busy machine is no fault of a test.
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
    )
    settings.load_profile("search" if IS_SEARCH else "same")
    # hypothesis also draws the constants of all modules that are loaded, and which are depends on the tests that ran in
    # this process before. There is no setting against it. Versions without that have nothing to replace.
    if not IS_SEARCH and hasattr(providers, "_get_local_constants"):
        nothing = type(providers._local_constants)()
        providers._get_local_constants = lambda: nothing
