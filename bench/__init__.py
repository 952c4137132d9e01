"""Every speed claim of the README, measured beside its peer in one run."""

import sys
from pathlib import Path

MODEL = Path(__file__).resolve().parents[1] / "model"
# The entry points find the package `classifier` beside them; so must what calls them from here.
sys.path.insert(0, str(MODEL))
# Last, for its names are short: the server itself says how many cores it counts.
sys.path.append(str(MODEL / "container"))
