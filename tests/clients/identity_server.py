"""A hospital's FHIR server on a free loopback port: search by identifier and $ihe-pix, and what can go wrong."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Resource = dict[str, Any]
OUTCOME = "OperationOutcome"


def outcome(code: str) -> Resource:
    """What a server says that does not want to."""
    return {"resourceType": OUTCOME, "issue": [{"severity": "error", "code": code}]}


def split(parameter: str, sign: str) -> list[str]:
    """A search parameter's parts, at signs that are not escaped."""
    return re.split(rf"(?<!\\){re.escape(sign)}", parameter)


def plain(part: str) -> str:
    return re.sub(r"\\(.)", r"\1", part)


class Hospital:
    """`resources` are searched, `links` are what $ihe-pix answers by source identifier. `asked` is every request's path
    and parameters. `instead` replaces all answers: a status and a body; `silent` makes it say nothing at all."""

    def __init__(self) -> None:
        self.resources: list[Resource] = []
        self.links: dict[str, list[Resource]] = {}
        self.more: Resource = {}
        self.asked: list[tuple[str, list[tuple[str, str]]]] = []
        self.instead: tuple[int, str | Resource | list[Resource]] | None = None
        self.silent = False
        self.heard = asyncio.Event()
        self.base = ""

    def answer(self, path: str, parameters: list[tuple[str, str]]) -> tuple[int, str | Resource | list[Resource]]:
        """The status and the body for a request."""
        if path == "/elsewhere":
            return 200, self.search("Patient", dict(parameters))
        if self.instead is not None:
            return self.instead
        if path == "/fhir/Patient/$ihe-pix":
            found = self.links.get(dict(parameters)["sourceIdentifier"])
            return (200, {"resourceType": "Parameters", "parameter": found}) if found else (404, outcome("not-found"))
        return 200, self.search(path.removeprefix("/fhir/"), dict(parameters))

    def search(self, kind: str, parameters: dict[str, str]) -> Resource:
        """A searchset."""
        found = [each for each in self.resources if each["resourceType"] == kind and self.matches(each, parameters)]
        entries = [{"resource": each, "search": {"mode": "match"}} for each in found]
        if parameters.get("_include") == "ImagingStudy:patient":
            wanted = {each["subject"]["reference"] for each in found if "subject" in each}
            people = [each for each in self.resources if f"{each['resourceType']}/{each['id']}" in wanted]
            entries += [{"resource": each, "search": {"mode": "include"}} for each in people]
        return {"resourceType": "Bundle", "type": "searchset", "entry": entries, **self.more}

    @staticmethod
    def matches(resource: Resource, parameters: dict[str, str]) -> bool:
        if "_id" in parameters:
            return bool(resource["id"] == plain(parameters["_id"]))
        for wanted in split(parameters["identifier"], ","):
            system, value = map(plain, split(wanted, "|"))
            for each in resource["identifier"]:
                if each.get("system", "") == system and each["value"].lower() == value.lower():
                    return True
        return False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
        target = urlsplit(head.split(" ")[1])
        parameters = parse_qsl(target.query, keep_blank_values=True, strict_parsing=True)
        self.asked.append((target.path, parameters))
        self.heard.set()
        if self.silent:
            await reader.read()
        else:
            status, body = self.answer(target.path, parameters)
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            moved = f"Location: /elsewhere?{target.query}\r\n" if 300 <= status < 400 else ""
            writer.write(
                f"HTTP/1.1 {status} X\r\n{moved}Connection: close\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            )
            writer.write(content)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def hospital() -> AsyncIterator[Hospital]:
    """A hospital that is open."""
    here = Hospital()
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    here.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/fhir"
    async with server:
        yield here
