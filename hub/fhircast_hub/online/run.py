"""`check-config --online`: asks all that the settings name whether it would answer the hub. Nothing is changed anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx

from fhircast_hub.online.callbacks import CallbackCheck, describe
from fhircast_hub.online.finding import Finding
from fhircast_hub.online.issuers import check_login, issuer_checks
from fhircast_hub.online.places import LookAt, check_audit, check_store
from fhircast_hub.settings.outbound_proxies import LOOPBACK, ProxiedTransport
from fhircast_hub.settings.settings import Settings


async def check_online(settings: Settings, callbacks: Sequence[str], look: LookAt | None) -> list[Finding]:
    """Findings in the order of docs/settings.md: issuers, store, callbacks, audit trail. All checks run at once.

    The clients are as those of `serve`: with its proxies and certificates. `callbacks` are URLs. `look` looks at
    the database of a shared store.
    """
    outbound = ProxiedTransport(LOOPBACK)
    to_audit = ProxiedTransport(LOOPBACK, settings.audit_certificate)
    async with httpx.AsyncClient(transport=outbound) as client, httpx.AsyncClient(transport=to_audit) as audit_client:
        issuers = [
            group for each in issuer_checks(settings, client) for group in (each.findings(), each.introspection())
        ]
        posting = CallbackCheck(settings, outbound.certificates)
        groups = await asyncio.gather(
            *issuers,
            check_login(settings, client),
            check_store(settings, look),
            _callbacks(settings, posting, callbacks),
            check_audit(settings, audit_client),
        )
    return [finding for group in groups for finding in group]


async def _callbacks(settings: Settings, posting: CallbackCheck, callbacks: Sequence[str]) -> list[Finding]:
    if not callbacks:
        return [describe(settings)]
    return list(await asyncio.gather(*map(posting.finding, callbacks)))
