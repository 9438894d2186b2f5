"""The token response: the tokens, and the launch parameters beside them (SMART App Launch 2.2, "Response" of the token
request)."""

from __future__ import annotations

from typing import Any

from demo.auth.expiring_store import new_secret
from demo.auth.hub import session_for
from demo.auth.model import Grant, Launch
from demo.auth.scopes import has_fhircast, without_writing
from demo.auth.server import BROWSER_SECONDS, OFFLINE_SECONDS, AuthServer
from demo.auth.signing import ACCESS_TOKEN, ID_TOKEN

#: Seconds since an expired token expired: more than any server's tolerance for clocks.
LONG_AGO = 600


async def token_response(server: AuthServer, grant: Grant, asked: tuple[str, ...], nonce: str | None) -> dict[str, Any]:
    """The members of the response, for the scopes `asked` of those of the grant."""
    scopes = without_writing(asked) if server.switches.scope_withheld else asked
    response: dict[str, Any] = {
        "access_token": _access_token(server, grant, scopes),
        "token_type": "Bearer",
        "expires_in": server.token_seconds,
        "scope": " ".join(scopes),
        "need_patient_banner": grant.launch is None or grant.launch.need_patient_banner,
    }
    if refresh_token := _refresh_token(server, grant):
        response["refresh_token"] = refresh_token
    if "openid" in scopes:
        response["id_token"] = _id_token(server, grant, scopes, nonce)
    if grant.launch and "launch" in scopes:
        response |= _context(grant.launch)
    if has_fhircast(scopes):
        response |= await session_for(server, grant.clinician)
    return response


def _context(launch: Launch) -> dict[str, Any]:
    found: dict[str, Any] = {"patient": launch.patient, "encounter": launch.encounter, "intent": launch.intent}
    if launch.imaging_study:
        found["fhirContext"] = [{"reference": f"ImagingStudy/{launch.imaging_study}"}]
    return {name: value for name, value in found.items() if value is not None}


def _access_token(server: AuthServer, grant: Grant, scopes: tuple[str, ...]) -> str:
    """RFC 9068. With "expired token" the client is told the usual lifetime, and learns the truth from the hub."""
    issued = int(server.clock())
    if server.switches.expired_token:
        issued -= server.token_seconds + LONG_AGO
    jti = new_secret()
    claims = {
        "iss": server.issuer,
        "sub": grant.clinician.id,
        "aud": list(server.audiences),
        "client_id": grant.client.client_id,
        "scope": " ".join(scopes),
        "iat": issued,
        "exp": issued + server.token_seconds,
        "jti": jti,
        "name": grant.clinician.name,
        "hpr_number": grant.clinician.hpr_number,
        "fhirUser": _fhir_user(server, grant),
    }
    server.access_tokens.put(jti, grant, server.token_seconds)
    return server.signer.sign(claims, ACCESS_TOKEN, unknown_key=server.switches.unknown_key)


def _refresh_token(server: AuthServer, grant: Grant) -> str | None:
    """A new refresh token replaces the last one (RFC 9700 section 4.14.2)."""
    if "offline_access" in grant.scopes:
        seconds: float = OFFLINE_SECONDS
    elif "online_access" in grant.scopes:
        seconds = grant.signed_in_at + BROWSER_SECONDS - server.clock()
    else:
        return None
    grant.refresh_token = server.refresh_tokens.add(grant, seconds)
    return grant.refresh_token


def _id_token(server: AuthServer, grant: Grant, scopes: tuple[str, ...], nonce: str | None) -> str:
    """OpenID Connect Core section 2; SMART's fhirUser; `sid` of OpenID Connect Front-Channel Logout 1.0."""
    now = int(server.clock())
    claims: dict[str, Any] = {
        "iss": server.issuer,
        "sub": grant.clinician.id,
        "aud": grant.client.client_id,
        "iat": now,
        "exp": now + server.token_seconds,
        "auth_time": grant.signed_in_at,
        "sid": grant.login.sid,
    }
    if nonce is not None:
        claims["nonce"] = nonce
    if "profile" in scopes:
        claims["name"] = grant.clinician.name
    if "fhirUser" in scopes:
        claims["fhirUser"] = _fhir_user(server, grant)
    return server.signer.sign(claims, ID_TOKEN, unknown_key=server.switches.unknown_key)


def _fhir_user(server: AuthServer, grant: Grant) -> str:
    return f"{server.fhir_base.rstrip('/')}/Practitioner/{grant.clinician.practitioner}"
