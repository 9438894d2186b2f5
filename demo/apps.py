"""The applications of the demo: their titles, clients, scopes, and the routes of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from demo import imaging, records
from demo.auth import AuthServer, Client, HubSessions, Text, make_app, smart_configuration
from demo.places import Places
from demo.site import make_site

_HERE = Path(__file__).parent
#: The realm of both authorization servers, and the claim with the user's name in their tokens.
REALM, USER_CLAIM = "hospital", "hpr_number"
#: The system client as which the EHR's authorization server asks the hub for sessions.
LAUNCHER = "ehr-launcher"

TITLES = {
    "ehr": Text("Hospital record", "Journalen"),
    "pacs": Text("PACS", "PACS"),
    "second-opinion": Text("Second opinion", "Annen vurdering"),
    "chart": Text("Anaesthesia chart", "Anestesikurve"),
    "reporting": Text("Reporting", "Beskrivelse"),
}
VIEWERS = ("pacs", "second-opinion")

_LOGIN = ("openid", "profile", "fhirUser", "online_access", "launch")
_FOLLOWING = ("fhircast/*.read", "fhircast/SyncError.write")
#: Only the application in which reports are signed may write to the records.
_SIGNING = ("user/DiagnosticReport.cu", "user/Observation.cu")
_LEAVING = "fhircast/UserLogout.write"
_SCOPES = {
    "ehr": (*_LOGIN, "user/*.read", "user/*.rs", "fhircast/*.*", "fhircast/*.read", "fhircast/*.write"),
    "pacs": (*_LOGIN, "user/*.read", "user/*.rs", *_FOLLOWING, _LEAVING, "fhircast/DiagnosticReport-update.write", "fhircast/DiagnosticReport-select.write"),
    "chart": (*_LOGIN, "user/*.read", "user/*.rs", "fhircast/*.read"),
    "reporting": (*_LOGIN, "user/*.read", "user/*.rs", *_SIGNING, "fhircast/*.read", "fhircast/*.write", "fhircast/*.*"),
}  # fmt: skip
_SCOPES["second-opinion"] = _SCOPES["pacs"]


def issuers(places: Places) -> list[dict[str, Any]]:
    """The issuers that the hub trusts: the EHR's authorization server, which may begin sessions, and the hospital's
    login."""
    common = {"audience": places.hub_url, "realm": REALM, "user_claim": USER_CLAIM}
    return [
        {"issuer": places.origin("auth"), **common, "system_clients": [LAUNCHER]},
        {"issuer": places.origin("login"), **common},
    ]


def make_apps(places: Places, token_seconds: int) -> dict[str, ASGIApp]:
    """An ASGI application for each part but the hub, by its name in PORTS. Access tokens last for `token_seconds`."""
    auth, login = _auth(places, token_seconds), _login(places, token_seconds)

    async def verify(token: str) -> Mapping[str, Any]:
        """The claims of a token for the EHR's FHIR server and its archives. Raises for a token for other servers."""
        claims = auth.read_token(token)
        if places.fhir not in claims["aud"]:
            raise PermissionError("the token is for another server")
        return claims

    viewers = {name: Mount("/dicomweb", imaging.make_app(imaging.archive_for(name), verify)) for name in VIEWERS}
    own: dict[str, list[BaseRoute]] = {
        "ehr": [_discovery(auth), Mount("/fhir", records.make_app(verify))],
        "chart": [Route("/patients.json", _numbers)],
        **{name: [viewer] for name, viewer in viewers.items()},
    }
    sites = {
        name: make_site(
            _HERE / ("viewer" if name in VIEWERS else name) / "static",
            _config(places, name),
            more=own.get(name, ()),
            framed_by=places.origin("ehr") if name == "chart" else "'none'",
        )
        for name in TITLES
    }
    return {"auth": make_app(auth), "login": make_app(login), **sites}


def _auth(places: Places, token_seconds: int) -> AuthServer:
    """The EHR's own authorization server. The record and the applications in its frame need no consent. Others ask for
    consent once."""
    clients = tuple(
        Client(
            name,
            title,
            _redirect(places, name),
            _SCOPES[name],
            may_launch=name == "ehr",
            asks_consent=name not in {"ehr", "chart"},
        )
        for name, title in TITLES.items()
    )
    return AuthServer(
        places.origin("auth"),
        Text("Hospital record: login", "Journalen: innlogging"),
        clients,
        audience=places.hub_url,
        fhir_base=places.fhir,
        hub=HubSessions(f"{places.origin('hub')}/sessions", LAUNCHER),
        frame_origins=(places.origin("ehr"),),
        token_seconds=token_seconds,
    )


def _login(places: Places, token_seconds: int) -> AuthServer:
    """The hospital's login, which the chart uses. It knows nothing about the hub's sessions."""
    scopes = ("openid", "profile", "fhirUser", "online_access", *_FOLLOWING, _LEAVING)
    chart = Client("chart-login", TITLES["chart"], _redirect(places, "chart"), scopes, asks_consent=False)
    return AuthServer(
        places.origin("login"),
        Text("Hospital login", "Husets innlogging"),
        (chart,),
        audience=places.hub_url,
        fhir_base=places.fhir,
        frame_origins=(places.origin("ehr"),),
        token_seconds=token_seconds,
        single_sign_on=True,
    )


def _redirect(places: Places, name: str) -> tuple[str, ...]:
    return (f"{places.origin(name)}/index.html",)


def _config(places: Places, name: str) -> dict[str, Any]:
    """The configuration of a page (/config.json)."""
    config = {
        "app": name,
        "title": TITLES[name]._asdict(),
        "clientId": name,
        "issuer": places.origin("auth"),
        "fhir": places.fhir,
        "apps": places.origins(),
        "titles": [title._asdict() for title in TITLES.values()],
    }
    if name in VIEWERS:
        config["dicomweb"] = places.dicomweb(name)
    if name == "chart":
        config["login"] = places.origin("login")
    return config


def _discovery(auth: AuthServer) -> Route:
    """A FHIR server tells the address of its authorization server (SMART App Launch 2.2, "Conformance")."""

    async def tell(_: Request) -> JSONResponse:
        return JSONResponse(smart_configuration(auth), headers={"Access-Control-Allow-Origin": "*"})

    return Route("/fhir/.well-known/smart-configuration", tell)


async def _numbers(_: Request) -> FileResponse:
    """The chart's own patient numbers."""
    return FileResponse(_HERE / "chart" / "patients.json")
