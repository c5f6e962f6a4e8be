"""`ray job submit --working-dir . -- python ray_jobs/train.py --config FILE --output FOLDER`: one federation."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ray_jobs.job import run_job

if __name__ == "__main__":
    sys.exit(run_job("run", sys.argv[1:]))
