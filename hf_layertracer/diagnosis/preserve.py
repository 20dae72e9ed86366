"""Moved."""

from ..preserve import preserved as preserved
