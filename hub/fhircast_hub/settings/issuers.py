"""The issuers of tokens: the objects in FHIRCAST_ISSUERS, and how several get on with each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from fhircast_hub.settings.errors import Mistake, full_name, shown
from fhircast_hub.settings.types import Audience, Clients, ClientSecret, KeysUrl, Text, Url


class IssuerSettings(BaseModel):
    """One trusted authorization server: an object in FHIRCAST_ISSUERS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Url
    audience: Audience
    jwks_uri: KeysUrl | None = None
    introspection_endpoint: Url | None = None
    introspection_client_id: Text | None = None
    introspection_client_secret: ClientSecret | None = None
    introspection_client_secret_file: Text | None = None
    realm: Text | None = None
    user_claim: Text = "sub"
    fhir_base: Url | None = None
    system_clients: Clients = frozenset()

    def plain(self) -> dict[str, Any]:
        """The members that auth reads, with the secret in plain text."""
        secret = self.introspection_client_secret
        members = self.model_dump(exclude={"introspection_client_secret_file"})
        return members | {"introspection_client_secret": secret.get_secret_value() if secret else None}

    @property
    def realm_name(self) -> str:
        """The realm. Without a setting, an issuer is its own."""
        return self.realm or self.issuer


def check_issuers(issuers: Sequence[IssuerSettings]) -> Iterator[Mistake]:
    """Mistakes between issuers, in the order of the list."""
    asked = [index for index, issuer in enumerate(issuers) if issuer.introspection_endpoint]
    first: dict[str, int] = {}
    realms = Counter({issuer.issuer: issuer.realm_name for issuer in issuers}.values())
    for index, issuer in enumerate(issuers):
        path = f"issuers[{index}]"
        if issuer.introspection_endpoint and index != asked[0]:
            # An opaque token does not name its issuer (AUT-14).
            name = full_name(f"{path}.introspection_endpoint")
            yield Mistake(f"{name} may be set for one issuer only, and issuers[{asked[0]}] has one too")
        yield from _check_credentials(issuer, path)
        if first.setdefault(issuer.issuer, index) != index:
            yield Mistake(f"{full_name(f'{path}.issuer')} repeats {shown(issuer.issuer)}")
        # One person must have the same name at all issuers of a realm. Only the operator knows the right claim (AUT-9).
        if realms[issuer.realm_name] > 1 and "user_claim" not in issuer.model_fields_set:
            line = f"{full_name(f'{path}.user_claim')} is required, because the realm has several issuers"
            yield Mistake(line, (f"{path}.issuer", f"{path}.realm", f"{path}.user_claim"))


def _check_credentials(issuer: IssuerSettings, path: str) -> Iterator[Mistake]:
    """Credentials for introspection that are not whole, or of no use."""
    has_id = issuer.introspection_client_id is not None
    has_secret = issuer.introspection_client_secret is not None or issuer.introspection_client_secret_file is not None
    id_, secret = f"{path}.introspection_client_id", f"{path}.introspection_client_secret"
    about = (id_, secret, f"{secret}_file")
    if has_id != has_secret:
        missing, given = (secret, "introspection_client_id") if has_id else (id_, "introspection_client_secret")
        yield Mistake(f"{full_name(missing)} is required, because {given} is set", about)
    if (has_id or has_secret) and issuer.introspection_endpoint is None:
        endpoint = f"{path}.introspection_endpoint"
        yield Mistake(f"{full_name(endpoint)} is required, because credentials for it are set", (*about, endpoint))
