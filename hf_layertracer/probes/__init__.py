"""Prompts with targets: reads them, and turns them into token ids."""

from .builtin import builtin_probes
from .probe import Probe
from .reading import as_probes, load_probes


__all__ = ["Probe", "as_probes", "builtin_probes", "load_probes"]
