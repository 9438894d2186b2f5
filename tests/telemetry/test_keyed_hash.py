"""Keyed hashes: the same for one key, and by no key but the store's or that of SECRET_KEY."""

from __future__ import annotations

import re
from hashlib import blake2b

import pytest

from fhircast_hub.telemetry.keyed_hash import KeyedHash
from fhircast_hub.webhook.sealing import Sealer

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.mark.req("SEC-1")
def test_a_keyed_hash_is_the_same_within_a_process_and_another_in_the_next() -> None:
    """Without SECRET_KEY and without a store."""
    one, two = KeyedHash(), KeyedHash()
    assert re.fullmatch("[0-9a-f]{12}", one("topic"))
    assert one("topic") == one("topic") != one("Topic")
    assert one("topic") != two("topic")
    assert one("half \udc80 a pair")


@pytest.mark.req("OPS-30")
def test_the_hash_of_a_secret_key_stays_the_same_for_ever() -> None:
    """Operators compare hashes of years. Another key has other hashes."""
    assert KeyedHash(SECRET)("5b0c9f7e") == KeyedHash(SECRET)("5b0c9f7e") == "fe514b1dbe50"
    assert KeyedHash(SECRET + "0")("5b0c9f7e") != "fe514b1dbe50"


@pytest.mark.req("OPS-30")
def test_the_key_of_the_store_counts_without_a_secret_key_only() -> None:
    of_store, derived = KeyedHash(), KeyedHash(SECRET)
    for each in (of_store, derived):
        each.learn_key(b"k" * 32)
    other = KeyedHash()
    other.learn_key(b"k" * 32)
    assert of_store("topic") == other("topic")
    assert derived("topic") == KeyedHash(SECRET)("topic") != of_store("topic")


@pytest.mark.req("OPS-30", "SEC-1")
def test_the_key_of_hashes_is_not_the_key_of_webhook_secrets() -> None:
    """Both come from SECRET_KEY, each for its purpose."""
    sealer = Sealer(SECRET)
    sealing = sealer._fernet._signing_key + sealer._fernet._encryption_key
    for key in (sealing, SECRET.encode()):
        assert blake2b(b"topic", digest_size=6, key=key).hexdigest() != KeyedHash(SECRET)("topic")
