"""Prompts with targets: reads them, and turns them into token ids."""

from .reading import Probe, builtin_probes, load_probes


__all__ = ["Probe", "builtin_probes", "load_probes"]
