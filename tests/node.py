"""The Node that runs JavaScript for the tests: the environment's own, for a machine may have none."""

from __future__ import annotations

import sys
from pathlib import Path

NODE = Path(sys.executable).parent / "node"
