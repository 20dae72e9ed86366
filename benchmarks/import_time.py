"""What `import hf_layertracer` costs against `import transformers`, each in separate processes, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


RUNS = 7


def run() -> list[tuple[str, str]]:
    """Measures both imports.

    Returns:
        `list[tuple[str, str]]`: Rows of the results.
    """
    times: dict[str, list[float]] = {"hf_layertracer": [], "transformers": [], "sys": []}
    for _ in range(RUNS):
        for module, measured in times.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            measured.append(time.perf_counter() - start)
    bare = statistics.median(times["sys"])
    ours, theirs = (statistics.median(times[module]) - bare for module in ("hf_layertracer", "transformers"))
    ratio = ours / theirs
    # Below this, the difference of two starts of the interpreter is noise, of either sign.
    shown = "below 0.01" if ratio < 0.01 else f"{ratio:.2f}"
    return [("`import hf_layertracer` / `import transformers`, both without the interpreter's start", shown)]
