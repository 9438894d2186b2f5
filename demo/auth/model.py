"""Who logs in, which applications there are, and what is known of one authorization: values without behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from demo.auth.texts import Text


@dataclass(frozen=True)
class Clinician:
    """A person who works here. `id` is the `sub` of the tokens, `practitioner` the id of the FHIR Practitioner."""

    id: str
    name: str
    practitioner: str
    hpr_number: str
    initials: str


@dataclass(frozen=True)
class Client:
    """A registered application. With a `secret` it is confidential, without one public.

    `redirect_uris` are compared letter by letter: a pattern would be an open door (RFC 9700 section 4.1). `scopes` is the most
    that it is granted; `fhircast/*.read` there allows each event's read scope. `may_launch` lets it register launch contexts.
    Without `asks_consent` its users are not asked: for the house's own. Raises ValueError for an unusable redirect URI.
    """

    client_id: str
    name: Text
    redirect_uris: tuple[str, ...]
    scopes: tuple[str, ...]
    secret: str | None = field(default=None, repr=False)
    may_launch: bool = False
    asks_consent: bool = True

    def __post_init__(self) -> None:
        for uri in self.redirect_uris:
            parts = urlsplit(uri)
            if parts.scheme not in {"http", "https"} or not parts.netloc or parts.fragment:
                raise ValueError(f"{self.client_id}: expected a web address without a fragment as redirect URI")
        if self.secret == "":
            raise ValueError(f"{self.client_id}: an empty secret is none")


@dataclass(frozen=True)
class HubSessions:
    """The hub's session API: its URL (`http://localhost:8080/sessions`), and as which system client it is asked."""

    url: str
    client_id: str


@dataclass(frozen=True)
class Launch:
    """What was open in the EHR when it launched an application, and for whom."""

    clinician: Clinician
    patient: str | None
    encounter: str | None
    imaging_study: str | None
    intent: str | None
    need_patient_banner: bool


@dataclass(eq=False)
class Login:
    """That a user signed in, in one browser. `sid` names the login in id tokens; `over` is whether the user has logged out."""

    sid: str
    over: bool = False


@dataclass(eq=False)
class Grant:
    """What one user allowed one client, and all tokens that came of it.

    `refresh_token` is the one that counts now. `used_token` is the one before, used at `used_at` (epoch seconds).
    """

    client: Client
    clinician: Clinician
    scopes: tuple[str, ...]
    launch: Launch | None
    signed_in_at: int
    login: Login
    nonce: str | None = None
    refresh_token: str = field(default="", repr=False)
    used_token: str = field(default="", repr=False)
    used_at: float = 0
    revoked: bool = False

    @property
    def is_left(self) -> bool:
        """Whether the user has logged out. `offline_access` lasts beyond that."""
        return self.login.over and "offline_access" not in self.scopes


@dataclass(eq=False)
class Code:
    """An authorization code: what it stands for, and what must come with it. `expires` is in epoch seconds."""

    grant: Grant
    redirect_uri: str
    challenge: str
    expires: float
    used: bool = False


@dataclass(eq=False)
class Browser:
    """A browser that was here. `csrf` stands in its forms; `known` is whether it has been given its cookie."""

    csrf: str = field(repr=False)
    clinician: Clinician | None = None
    signed_in_at: int = 0
    known: bool = False
    login: Login | None = None


@dataclass(frozen=True)
class Asked:
    """An authorization request that was found in order. `query` is how it came, to begin again; `max_age` is in seconds."""

    client: Client
    redirect_uri: str
    state: str
    scopes: tuple[str, ...]
    challenge: str
    query: str = field(repr=False)
    nonce: str | None = None
    prompt: frozenset[str] = frozenset()
    login_hint: str | None = None
    launch_id: str | None = field(default=None, repr=False)
    launch: Launch | None = None
    max_age: int | None = None


@dataclass(eq=False)
class Pending:
    """An authorization request that waits for its user, in one browser. `clinician` is who logged in for it."""

    asked: Asked
    browser: Browser
    clinician: Clinician | None = None
