"""What SIGHUP does: the settings are read again, and some of them count at once (OPS-20)."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from fhircast_hub.settings.combinations import check_combinations
from fhircast_hub.settings.errors import SettingsError
from fhircast_hub.settings.realms import near_names
from fhircast_hub.settings.settings import NAMES, Settings
from fhircast_hub.settings.types import mask
from fhircast_hub.telemetry.logs import configure_logging

#: The settings that count at once. All others need a restart.
AT_ONCE = frozenset({"issuers", "log_format", "log_level"})

_log = structlog.get_logger()


class Reloading:
    """Reads the settings again by `load`, which raises SettingsError. `settings` are those of the start."""

    def __init__(self, load: Callable[[], Settings], settings: Settings) -> None:
        self._load = load
        #: The settings that count: those of the start, with what the last reading without a mistake has changed.
        self.settings = settings
        self._at_start = settings

    def reload(self, apply: Callable[[Settings], None], worker: int | None = None) -> None:
        """Read the settings, and let `apply` use them. The log tells mistakes, and then all stays as it is.

        `apply` raises ValueError for settings that cannot be used. `worker`: the number of this process, where several write
        the log.
        """
        try:
            read = self._load()
            settings = self._at_start.model_copy(update={field: getattr(read, field) for field in AT_ONCE})
            # The rest is as it was: ALLOW_INSECURE, for one, may allow in the file what it does not allow here.
            if mistakes := [mistake.line for mistake in check_combinations(settings)]:
                raise SettingsError(*mistakes)
            apply(settings)
        except SettingsError as error:
            for line in error.lines:
                _log.error("settings not reloaded", reason=line)
        except ValueError as error:
            _log.error("settings not reloaded", reason=str(error))
        else:
            self._use(settings, read, worker)

    def _use(self, settings: Settings, read: Settings, worker: int | None) -> None:
        self.settings = settings
        # The sender of the signal waits for this line, whatever LOG_LEVEL is (OPS-44).
        configure_logging(settings.log_format, "info", worker)
        _log.info("settings reloaded", count=len(settings.issuers))
        configure_logging(settings.log_format, settings.log_level, worker)
        log_issuers(settings)
        if read.is_from_environment("issuers"):
            _log.warning("issuers stay", reason="they are in the environment, which only a restart reads again")
        if later := [name for name, field in NAMES.items() if getattr(read, field) != getattr(settings, field)]:
            _log.warning("settings need a restart", reason=", ".join(later))


def log_issuers(settings: Settings) -> None:
    """A line for each issuer: which tokens count, and how they are checked (OPS-19). Then names that are nearly alike."""
    for issuer in settings.issuers:
        _log.info(
            "issuer",
            issuer=issuer.issuer,
            audience=issuer.audience if isinstance(issuer.audience, str) else ", ".join(issuer.audience),
            realm=issuer.realm_name,
            user_claim=issuer.user_claim,
            jwks=mask(issuer.jwks_uri) if issuer.jwks_uri else "discovery",
            introspection=mask(issuer.introspection_endpoint) if issuer.introspection_endpoint else "none",
        )
    for near in near_names(settings.issuers):
        _log.warning("names are nearly alike", reason=f"{near.what}: {near.said}; {near.advice}")
