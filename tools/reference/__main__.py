"""`python -m tools.reference` names the pages that are not what the code says, with exit code 1. `--write` writes them."""

from __future__ import annotations

import argparse
import sys

from tools.reference.pages import stale, write_all


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the pages")
    if parser.parse_args().write:
        write_all()
        return 0
    wrong = stale()
    for page in wrong:
        print(f"{page} is not what the code says: make reference", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
