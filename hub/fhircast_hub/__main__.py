"""The command `fhircast-hub`, also as `python -m fhircast_hub`."""

from __future__ import annotations

import sys

from fhircast_hub.signals import hold_hangup


def main() -> None:
    """Run the command."""
    if "serve" in sys.argv:
        hold_hangup()  # before the imports, which take a second
    from fhircast_hub.cli import main as run

    run()


if __name__ == "__main__":
    main()
