"""Discovery documents (SMART App Launch 2.2, "Conformance"; OpenID Connect Discovery 1.0; RFC 8414)."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from demo.auth.http import server_of
from demo.auth.server import AuthServer

CAPABILITIES = [
    "launch-ehr",
    "launch-standalone",
    "client-public",
    "client-confidential-symmetric",
    "context-banner",
    "context-ehr-patient",
    "context-ehr-encounter",
    "permission-offline",
    "permission-online",
    "permission-patient",
    "permission-user",
    "permission-v2",
    "sso-openid-connect",
]


def smart_configuration(server: AuthServer) -> dict[str, Any]:
    """The document. A FHIR server publishes it too, at its own /.well-known/smart-configuration."""
    issuer = server.issuer
    methods = ["none", "client_secret_basic", "client_secret_post"]
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/jwks",
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "introspection_endpoint": f"{issuer}/introspect",
        "revocation_endpoint": f"{issuer}/revoke",
        "end_session_endpoint": f"{issuer}/end-session",
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "scopes_supported": sorted({scope for client in server.clients for scope in client.scopes}),
        "token_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_methods_supported": methods[1:],
        "revocation_endpoint_auth_methods_supported": methods,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "ui_locales_supported": ["en", "no", "nb", "nn"],
        "capabilities": CAPABILITIES,
    }


def openid_configuration(server: AuthServer) -> dict[str, Any]:
    """The document for OpenID Connect."""
    return smart_configuration(server) | {
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["sub", "name", "fhirUser", "auth_time"],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
    }


async def get_smart_configuration(request: Request) -> JSONResponse:
    """GET /.well-known/smart-configuration"""
    return JSONResponse(smart_configuration(server_of(request)))


async def get_openid_configuration(request: Request) -> JSONResponse:
    """GET /.well-known/openid-configuration"""
    return JSONResponse(openid_configuration(server_of(request)))


async def get_jwks(request: Request) -> JSONResponse:
    """GET /jwks"""
    server = server_of(request)
    await slowness(server)
    return JSONResponse(server.signer.jwks())


async def slowness(server: AuthServer) -> None:
    """Wait, if the switch is on."""
    if server.switches.slow:
        await server.pause(server.slow_seconds)
