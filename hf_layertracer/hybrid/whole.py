"""Hybrids of layers taken whole, in the class of their donors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from .blueprint import Blueprint
from .describe import hybrid_record
from .folder import write_settings
from .provenance import HybridRecord
from .verify import donor_outputs, verify_layers
from .weights import Digests, in_order, name_files, whole_tensors, write_tensors


def build_whole(plan: Blueprint, folder: Path, largest: int) -> HybridRecord:
    """Builds the stack of layers, in the base's class.

    Args:
        plan ([`Blueprint`]): What to build; mixers that it names are left as they are.
        folder (`Path`): An empty folder.
        largest (`int`): Bytes to a file.

    Returns:
        [`HybridRecord`]: What was built.
    """
    groups = whole_tensors(plan)
    digests = Digests()
    # Copying leaves most of a processor idle: the donors run meanwhile, unless it fails.
    failed = Event()
    with ThreadPoolExecutor(1) as beside:
        theirs = beside.submit(donor_outputs, plan.stack, plan.dtype, folder, failed.is_set)
        try:
            name_files(folder, write_tensors(folder, in_order(groups), largest, digests))
        except BaseException:
            failed.set()
            raise
    write_settings(folder, plan.config, type(plan.parts.model).__name__, plan.tokenizer)
    verify_layers(folder, plan, theirs.result())
    verified = ["output bit-equal to the donor's layer on the same input"] * len(plan.stack)
    return hybrid_record(plan, plan.parts, groups, digests, verified)
