"""The hospital's records: a dozen invented patients, and a FHIR R4 server that reads them out. It takes in what was signed."""

from demo.records.server import make_app

__all__ = ["make_app"]
