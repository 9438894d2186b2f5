"""A FHIRcast client: follows and drives a session, and tells whether all applications show the same context."""

from fhircast_client.client import FHIRcastClient
from fhircast_client.contexts import Context
from fhircast_client.errors import HubError, Refuse, TokenError
from fhircast_client.events import Event, WireMessage
from fhircast_client.status import Status
from fhircast_client.timings import Timings

__all__ = ["Context", "Event", "FHIRcastClient", "HubError", "Refuse", "Status", "Timings", "TokenError", "WireMessage"]
