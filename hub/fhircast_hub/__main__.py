"""`python -m fhircast_hub` is `fhircast-hub`."""

from fhircast_hub.cli import main

if __name__ == "__main__":
    main()
