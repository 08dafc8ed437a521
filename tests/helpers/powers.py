"""What root may do and others may not, given up for a while."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_VERSION, _DAC_OVERRIDE, _DAC_READ_SEARCH = 0x20080522, 1, 2  # of <linux/capability.h>


@contextmanager
def bound_by_modes() -> Iterator[None]:
    """Have the modes of files and folders hold for this thread, and those it starts, also as root.

    Skips the test where the system has no such thing.
    """
    if os.geteuid() != 0:
        yield
        return
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        get, change = libc.capget, libc.capset
    except (OSError, AttributeError):
        pytest.skip("modes do not bind root here")
    head, before = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    assert get(head, before) == 0
    less = (ctypes.c_uint32 * 6)(*before)
    less[0] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)  # of the first 32, those in effect
    assert change(head, less) == 0
    try:
        yield
    finally:
        assert change(head, before) == 0
