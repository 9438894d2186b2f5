"""Clinicians, applications, and the data of an authorization: values without behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from demo.auth.texts import Text


@dataclass(frozen=True)
class Clinician:
    """A clinician. `id` is the `sub` of the tokens, `practitioner` the id of the FHIR Practitioner."""

    id: str
    name: str
    practitioner: str
    hpr_number: str
    initials: str


@dataclass(frozen=True)
class Client:
    """A registered application: confidential with a `secret`, public without one.

    `redirect_uris` are compared exactly: patterns are unsafe (RFC 9700 section 4.1). `scopes`: the most that is
    granted. `fhircast/*.read` there allows each event's read scope. `may_launch`: whether it may register launch
    contexts. `asks_consent` False: users are not asked, as for the hospital's own applications. Raises ValueError for
    an unusable redirect URI.
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
                raise ValueError(f"{self.client_id}: a redirect URI must be a web address without a fragment")
        if self.secret == "":
            raise ValueError(f"{self.client_id}: the secret must not be empty")


@dataclass(frozen=True)
class HubSessions:
    """The hub's session API: its URL (`http://localhost:8080/sessions`), and the system client that asks."""

    url: str
    client_id: str


@dataclass(frozen=True)
class Launch:
    """The open context in the EHR when it launched an application, and its user."""

    clinician: Clinician
    patient: str | None
    encounter: str | None
    imaging_study: str | None
    intent: str | None
    need_patient_banner: bool


@dataclass(eq=False)
class Login:
    """The login of a user in one browser. `sid` names the login in id tokens. `over`: whether the user has logged out."""

    sid: str
    over: bool = False


@dataclass(eq=False)
class Grant:
    """The consent of one user for one client, with all tokens that were made from it.

    `refresh_token`: the one that counts now. `used_token`: the one before, used at `used_at` (epoch seconds).
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
        """Whether the user has logged out. `offline_access` lasts beyond a logout."""
        return self.login.over and "offline_access" not in self.scopes


@dataclass(eq=False)
class Code:
    """An authorization code: the grant, and the parameters that must come with the code. `expires` is in epoch seconds."""

    grant: Grant
    redirect_uri: str
    challenge: str
    expires: float
    used: bool = False


@dataclass(eq=False)
class Browser:
    """A browser. `csrf` stands in its forms. `known`: whether it was given its cookie."""

    csrf: str = field(repr=False)
    clinician: Clinician | None = None
    signed_in_at: int = 0
    known: bool = False
    login: Login | None = None


@dataclass(frozen=True)
class Asked:
    """A valid authorization request. `query`: its text, to begin again. `max_age` is in seconds."""

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
    """An authorization request that waits for its user, in one browser. `clinician`: the user who logged in for it."""

    asked: Asked
    browser: Browser
    clinician: Clinician | None = None
