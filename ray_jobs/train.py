"""What `ray job submit --working-dir . -- python ray_jobs/train.py --config FILE ...` runs.

The same as `lightning-fed run`, on the cluster that runs the job. A job works in an uploaded copy of the
working directory, so `data.root` and `output` must be absolute paths that every node can read and write.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lightning_fed.cli import main

if __name__ == "__main__":
    words = sys.argv[1:]
    if not any(word.startswith("--ray.address") for word in words):
        words += ["--ray.address", "auto"]
    sys.exit(main(["run", *words]))
