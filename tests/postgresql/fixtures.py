"""Fixtures with a real PostgreSQL, for every test: `database` is the URL of an empty database."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgresql.programs import server_folder
from tests.postgresql.server import PostgresServer


@pytest.fixture
def postgres_folder() -> Iterator[Path]:
    """A temporary folder for a server of the test's own."""
    with server_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server that all tests share, with data that need not outlive a crash."""
    with server_folder() as folder, PostgresServer.make(folder) as server:
        yield server


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a new, empty database. The database is dropped after the test, and its connections are ended."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)
