"""A UserLogout ends its session, where the deployment wants so (setting LOGOUT_ENDS_SESSION, SES-5)."""

from __future__ import annotations

from msgspec.structs import replace

from fhircast_hub.core.rules import administration
from fhircast_hub.core.state.effects import EndWebhook
from fhircast_hub.core.state.session import Outcome
from fhircast_hub.core.wire.event import Event


def is_logout(event: Event) -> bool:
    """Whether the event is a UserLogout."""
    return event.key == "userlogout"


def end_session(logout: Outcome) -> Outcome:
    """The outcome of a UserLogout, followed by the end of the session.

    All subscribers receive the event first. Posts to callbacks are not cancelled: the UserLogout is the last of them.
    """
    ended = administration.end_session(logout.session, "the user has logged out")
    effects = [
        replace(effect, numbers=frozenset()) if isinstance(effect, EndWebhook) else effect for effect in ended.effects
    ]
    return Outcome(None, (*logout.effects, *effects))
