"""`ray job submit --working-dir . -- python ray_jobs/sweep.py FILE --output FOLDER`: the runs of a sweep file."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ray_jobs.job import run_job

if __name__ == "__main__":
    sys.exit(run_job("sweep", sys.argv[1:]))
