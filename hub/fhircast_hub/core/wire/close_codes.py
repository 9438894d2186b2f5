"""Close codes of WebSockets (RFC 6455 section 7.4.1). 1012 and 1013 are from the IANA registry."""

from __future__ import annotations

NORMAL = 1000
GOING_AWAY = 1001
ABNORMAL = 1006
POLICY_VIOLATION = 1008
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013
