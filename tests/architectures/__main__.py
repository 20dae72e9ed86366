"""`python -m tests.architectures`: checks all model types, writes docs/architectures.md, fails if any is broken."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from hf_layertracer.files import write_atomically

from .sweep import ROOT, sweep
from .table import BROKEN, FULL, causal, counts, document, status
from .tiny import MODEL_TYPES


DOCUMENT = ROOT / "docs" / "architectures.md"
WANTED = 0.98


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "types", nargs="*", metavar="TYPE", help="model types; all by default, and the page is written"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many at once")
    parser.add_argument("--json", type=Path, help="file for the results; those that it holds are not asked for again")
    args = parser.parse_args()
    results = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    known = {result["model_type"] for result in results}
    for result in sweep([name for name in args.types or MODEL_TYPES if name not in known], args.processes):
        results.append(result)
        wrong = {name: text for name, text in result["checks"].items() if text != "ok"}
        print(f"{result['model_type']}: {status(result)} {wrong or ''}", flush=True)
        if args.json:
            write_atomically(args.json, json.dumps(results, indent=1).encode())
    if not args.types:
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(document(results))
    number = counts(results)
    print(number)
    return int(number[BROKEN] > 0 or number[FULL] < WANTED * causal(number))


if __name__ == "__main__":
    sys.exit(main())
