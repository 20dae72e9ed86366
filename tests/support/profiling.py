"""Memory as torch's own allocator counts it: the reference that our counts are held against."""

from __future__ import annotations

from collections.abc import Callable

import torch


def profiled_peak(work: Callable[[], object]) -> int:
    """The most bytes that torch's own allocator had given out at once, from its profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
