"""The hospital's records: a dozen invented patients, on a FHIR R4 server. Signed documents can be written."""

from demo.records.server import make_app

__all__ = ["make_app"]
