# SPDX-License-Identifier: Apache-2.0
"""What is known of where output goes."""

from __future__ import annotations

import pytest

from oci_bind_hook.commands.output import has_unicode

LOCALES = {
    b"": False,
    b"LANG=C": False,
    b"LANG=C.UTF-8": True,
    b"LANG=de_DE.utf8": True,
    b"LANG=de_DE.ISO-8859-1": False,
    b"LANG=en_GB.UTF-8\0LC_ALL=C": False,
    b"LC_ALL=\0LANG=en_GB.UTF-8": True,
    b"LANG=C\0LC_CTYPE=C.UTF-8": True,
    b"LANG=en_GB.UTF-8\0LC_CTYPE=C": False,
    b"LC_NUMERIC=en_GB.UTF-8\0\xff\0=": False,
}


@pytest.mark.parametrize("environment", LOCALES)
def test_whether_the_locale_has_unicode(environment: bytes) -> None:
    assert has_unicode(environment) == LOCALES[environment]
