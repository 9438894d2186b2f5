"""Logs: the fields that a log line holds, and the secrets that no line holds."""

from __future__ import annotations

import ast
import asyncio
import http
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
import uvicorn

from fhircast_hub.telemetry import logs
from fhircast_hub.telemetry.keyed_hash import KeyedHash
from fhircast_hub.telemetry.logs import ALLOWED, HIDDEN, configure_logging, log_request
from fhircast_hub.telemetry.metrics import Metrics

PACKAGE = Path(logs.__file__).parents[1]

LOG = structlog.get_logger
LOG_CALL = r"(.*\.)?_?log\.(debug|info|warning|error|critical|exception)"

SECRET = "eyJhbGciOiJFUzI1NiJ9.hunter2"
ENDPOINT = "wss://hub.example/api/hub/ws/hunter2"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo the changes of configure_logging. They belong to the process, which other tests share."""
    root = logging.getLogger()
    before = (root.handlers, root.level, sys.excepthook, sys.unraisablehook, threading.excepthook)
    requests, log = logs._requests, logs._log
    logs._log = structlog.get_logger()  # a logger keeps the configuration of its first use
    yield
    logs._requests, logs._log = requests, log
    root.handlers, level, sys.excepthook, sys.unraisablehook, threading.excepthook = before
    root.setLevel(level)
    structlog.reset_defaults()


class Lines:
    """The log lines that were written to stdout."""

    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capture
        self.raw = ""

    def all(self) -> list[dict[str, Any]]:
        written = self._capture.readouterr()
        assert written.err == b""
        self.raw = written.out.decode()
        return [json.loads(line) for line in self.raw.splitlines()]

    def one(self) -> dict[str, Any]:
        (line,) = self.all()
        return line


@pytest.fixture
def lines(capsysbinary: pytest.CaptureFixture[bytes]) -> Lines:
    configure_logging("json", "info")
    return Lines(capsysbinary)


@pytest.mark.req("OPS-2")
def test_a_request_is_one_line_of_json(lines: Lines) -> None:
    LOG().info("request", request_id="a-1", method="POST", route="publish", status=202, ms=0.25)
    written = {"request_id": "a-1", "method": "POST", "route": "publish", "status": 202, "ms": 0.25}
    line = lines.one()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {"level": "info", "event": "request"} | written


@pytest.mark.req("SEC-1")
def test_nothing_of_a_dict_full_of_secrets_is_written(lines: Lines) -> None:
    secrets = dict.fromkeys(
        (
            *(
                "token",
                "authorization",
                "headers",
                "endpoint",
                "hub_channel_endpoint",
                "path",
                "query",
                "body",
                "secret",
            ),
            *(
                "context",
                "resource",
                "patient",
                "user",
                "sub",
                "client",
                "subscriber_name",
                "claims",
                "args",
                "message",
            ),
        ),
        SECRET,
    )
    LOG().info("request", status=200, **secrets)
    assert set(lines.one()) == {"timestamp", "level", "event", "status"}
    assert "hunter2" not in lines.raw


@pytest.mark.req("SEC-1")
def test_no_allowed_name_invites_a_secret() -> None:
    dangerous = (
        r"token|auth|secret|key|password|endpoint|header|cookie|body|payload|param|query|path|uri|context|resource|patient"
        r"|user(?!_claim$)|sub$|client(?!_id$)|(?<!^user_)claim|scope|callback|exc|stack|trace|args|message|data|value"
    )
    assert not [name for name in ALLOWED if re.search(dangerous, name)]


@pytest.mark.req("SEC-1")
def test_bound_values_are_left_out_too(lines: Lines) -> None:
    LOG().bind(token=SECRET, request_id="a-1").info("request")
    assert lines.one()["request_id"] == "a-1"
    assert "hunter2" not in lines.raw


@pytest.mark.req("SEC-1")
@pytest.mark.parametrize("name", ["topic", "subscriber"])
def test_topics_and_names_are_written_only_as_keyed_hashes(lines: Lines, name: str) -> None:
    log_hash = KeyedHash()
    LOG().info("request", **{name: "room-12"})
    assert lines.one()[name] == HIDDEN
    LOG().info("request", **{name: log_hash("room-12")})
    assert lines.one()[name] == log_hash("room-12")


@pytest.mark.req("SEC-1")
@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("url", ENDPOINT, "wss://hub.example"),
        ("url", "https://me:hunter2@hub.example:8443/a?b#c", "https://hub.example:8443"),
        ("reason", f"no answer from {ENDPOINT}?x=1 in 3 s", "no answer from wss://hub.example in 3 s"),
        ("issuer", "https://login.example/realms/clinical", "https://login.example/realms/clinical"),
        ("store", "sqlite:////var/lib/hub.db", "sqlite:////var/lib/hub.db"),
        ("reason", {"token": "hunter2"}, HIDDEN),
        ("reason", ["hunter2"], HIDDEN),
        ("reason", b"hunter2", HIDDEN),
        ("reason", ValueError("hunter2"), HIDDEN),
        ("reason", "x" * 5000, "x" * logs.MAX_TEXT),
        ("reason", "half \udc80 a pair", "half ? a pair"),
        ("reason", None, None),
        ("status", http.HTTPStatus.OK, 200),
        ("count", 2**80, 2**80),
        ("ms", float("nan"), None),
        ("ms", True, True),
    ],
)
def test_a_value_is_short_text_without_a_path_or_a_number(
    lines: Lines, name: str, value: object, written: object
) -> None:
    LOG().info("request", **{name: value})
    assert lines.one()[name] == written
    assert "hunter2" not in lines.raw


@pytest.mark.req("SEC-1")
@pytest.mark.parametrize("event", [f"request {SECRET}", ENDPOINT, "topic fdb2f928-5546", "x" * 200, "", {"a": 1}, None])
def test_an_event_that_is_no_plain_text_of_ours_is_hidden(lines: Lines, event: Any) -> None:
    LOG().info(event)
    assert lines.one()["event"] in (HIDDEN, "None")


def is_plain(said: ast.expr) -> bool:
    """Whether `said` is a literal that log lines accept, a choice among such literals, or a name."""
    if isinstance(said, ast.IfExp):
        return is_plain(said.body) and is_plain(said.orelse)
    return isinstance(said, ast.Name) or (isinstance(said, ast.Constant) and logs._event(said.value) == said.value)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_each_log_call_of_the_hub_says_a_plain_text_and_uses_allowed_fields(path: Path) -> None:
    """A log line drops other texts and fields. This test finds them before an operator misses them."""
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and re.fullmatch(LOG_CALL, ast.unparse(call.func)):
            assert [is_plain(said) for said in call.args] == [True], f"line {call.lineno}"
            unknown = {keyword.arg for keyword in call.keywords if keyword.arg} - ALLOWED - {"exc_info"}
            assert not unknown, f"line {call.lineno}: {unknown}"


@pytest.mark.req("SEC-1")
def test_an_exception_is_its_type_and_place_and_not_its_message(lines: Lines) -> None:
    metrics = Metrics()
    # int() fails in this file. The hub's package called a library, and the library called the lambda.
    metrics.sockets.set_function(lambda: int(SECRET))
    try:
        metrics.render()
    except ValueError as error:
        LOG().exception("request failed", exc_info=ExceptionGroup(SECRET, [error]))
    line = lines.one()
    assert line["level"] == "error"
    assert line["error"] == "ValueError"
    assert re.fullmatch(r"telemetry/metrics\.py:\d+", line["where"])
    assert "hunter2" not in lines.raw


@pytest.mark.req("SEC-1")
def test_an_exception_names_the_type_of_its_cause(lines: Lines) -> None:
    error = KeyError("hunter2")
    error.__cause__ = OSError("hunter2")
    LOG().error("request failed", exc_info=error)
    assert lines.one()["error"] == "KeyError from OSError"
    LOG().error("request failed", exc_info=(ValueError, ValueError("hunter2"), None))
    assert lines.one()["error"] == "ValueError"
    LOG().error("request failed", exc_info=True)
    assert "error" not in lines.one()


def test_an_error_of_the_system_says_what_the_system_calls_it(lines: Lines) -> None:
    error = PermissionError(13, "hunter2", "/var/lib/hunter2.db")
    LOG().error("store not opened", exc_info=error)
    line = lines.one()
    assert (line["error"], line["reason"]) == ("PermissionError", os.strerror(13))
    assert "hunter2" not in lines.raw


@pytest.mark.req("SEC-1")
@pytest.mark.parametrize(
    ("message", "args"),
    [
        ('%s - "WebSocket %s" [accepted]', ("10.0.0.1", f"/ws/{SECRET}")),
        (f"Traceback (most recent call last): {SECRET}", ()),
        ("HTTP Request: %s", (ENDPOINT,)),
    ],
)
def test_a_library_says_who_and_where_and_nothing_else(lines: Lines, message: str, args: tuple[object, ...]) -> None:
    logging.getLogger("uvicorn.error").error(message, *args)
    line = lines.one()
    assert (line["level"], line["event"], line["logger"]) == ("error", "library message", "uvicorn.error")
    assert re.fullmatch(r"test_logs\.py:\d+", line["where"])
    assert "reason" not in line
    assert "hunter2" not in lines.raw


@pytest.mark.req("SEC-1")
def test_libraries_are_silent_below_warning_even_where_the_hub_is_not(lines: Lines) -> None:
    configure_logging("json", "debug")
    library = logging.getLogger("websockets.server")
    library.setLevel(logging.DEBUG)
    library.debug("< TEXT '%s'", SECRET)
    library.info("connection open")
    assert lines.all() == []
    library.warning("something")
    assert lines.one()["level"] == "warning"
    library.setLevel(logging.NOTSET)


def test_a_library_that_logs_an_exception_is_given_its_type(lines: Lines) -> None:
    logging.getLogger("uvicorn.error").error(OSError(98, "hunter2"))
    line = lines.one()
    assert (line["error"], line["reason"]) == ("OSError", os.strerror(98))
    try:
        raise LookupError(SECRET)
    except LookupError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved: %s", SECRET)
    assert lines.one()["error"] == "LookupError"
    assert "hunter2" not in lines.raw


def test_what_uvicorn_says_of_itself_is_kept(lines: Lines) -> None:
    logging.getLogger("uvicorn.error").error("Application startup failed. Exiting.")
    assert lines.one()["reason"] == "Application startup failed. Exiting."


@pytest.mark.req("SEC-1")
@pytest.mark.parametrize(("value", "shown"), [(3, "3"), (SECRET, "some"), (True, "some")])
def test_a_text_of_a_library_has_its_numbers_and_no_other_value(lines: Lines, value: object, shown: str) -> None:
    message = "Cancel %s running task(s), timeout graceful shutdown exceeded"
    logging.getLogger("uvicorn.error").error(message, value)
    assert lines.one()["reason"] == message.replace("%s", shown)
    assert "hunter2" not in lines.raw


@pytest.mark.parametrize("text", sorted(logs.LIBRARY_TEXTS))
def test_uvicorn_still_says_it_that_way(text: str) -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(uvicorn.__file__).parent.rglob("*.py"))
    assert f'"{text}"'.replace("\n", "\\n") in sources


@pytest.mark.req("SEC-1")
def test_an_uncaught_exception_leaves_no_traceback(lines: Lines) -> None:
    def fail() -> None:
        raise LookupError(SECRET)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    sys.excepthook(LookupError, LookupError(SECRET), None)
    sys.unraisablehook(SimpleNamespace(exc_value=LookupError(SECRET)))
    assert [(line["event"], line["error"]) for line in lines.all()] == [("uncaught exception", "LookupError")] * 3
    assert "hunter2" not in lines.raw


@pytest.mark.req("OPS-2")
def test_each_line_of_a_worker_has_its_number(lines: Lines) -> None:
    """Also of loggers that the first process has used, and of libraries. What a line says itself is kept."""
    log = LOG()
    log.info("starting")
    assert "worker" not in lines.one()
    configure_logging("json", "info", worker=3)
    log.info("request", status=200)
    log.error("worker died", worker=1)
    logging.getLogger("uvicorn.error").warning("a text")
    assert [line["worker"] for line in lines.all()] == [3, 1, 3]
    configure_logging("json", "info")
    log.info("starting")
    assert "worker" not in lines.one()


def test_lines_below_the_level_are_not_written(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    configure_logging("json", "warning")
    LOG().info("request")
    LOG().warning("slow reader closed")
    assert Lines(capsysbinary).one()["event"] == "slow reader closed"


def test_a_closed_stdout_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging("json", "info")
    with Path(os.devnull).open("w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
    LOG().info("request")


@pytest.mark.req("SEC-1")
def test_the_console_format_is_for_people_and_keeps_the_same_secrets(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    configure_logging("console", "info")
    LOG().info("request", token=SECRET, status=202, reason="a\x1b[2Jb\nc", url=ENDPOINT)
    text = capsysbinary.readouterr().out.decode()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d info     request +status=202 reason='a\\x1b\[2Jb\\nc' url='wss://hub\.example'\n", text
    )


def test_the_console_format_has_colours_on_a_terminal_only(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging("console", "info")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    LOG().error("request failed")
    assert b"\x1b[31merror   \x1b[0m" in capsysbinary.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    LOG().error("request failed")
    assert b"\x1b" not in capsysbinary.readouterr().out


# --- lines of requests, which are written without structlog's steps ---


@pytest.mark.req("OPS-2")
async def test_the_line_of_a_request_is_as_structlog_would_write_it(lines: Lines) -> None:
    fields = {"route": "publish", "topic": "0123456789ab", "name": "Patient-open"}
    log_request("a-1", "POST", 202, 0.25, fields)
    LOG().info("request", request_id="a-1", method="POST", status=202, ms=0.25, **fields)
    quick, usual = lines.all()
    assert list(quick) == list(usual)
    assert {**quick, "timestamp": ""} == {**usual, "timestamp": ""}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", quick["timestamp"])


@pytest.mark.req("SEC-1")
async def test_the_line_of_a_request_keeps_the_same_secrets(lines: Lines) -> None:
    log_request("a-1", "POST" * 99, 400, 1.0, {"topic": "my-topic", "reason": f"not {ENDPOINT}", "token": SECRET})
    log_request("a-2", "GET", 200, 1.0, {"route": "half a pair: \ud800", "name": 7, "topic": ""})
    LOG().info("a turn ends")
    first, second, _ = lines.all()
    assert (first["topic"], first["reason"], len(first["method"])) == (HIDDEN, "not wss://hub.example", 200)
    assert second["route"] == "half a pair: ?"
    assert not {"token", "name", "topic"} & {*first, *second} - {"topic"}
    assert "hunter2" not in lines.raw


@pytest.mark.req("OPS-2")
async def test_lines_of_one_turn_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write is cut into no more than PIPE_BUF bytes: workers write to one pipe."""
    writes: list[bytes] = []
    configure_logging("json", "info", worker=2)
    out = SimpleNamespace(write=writes.append, flush=lambda: None)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out))
    for number in range(60):
        log_request(f"a-{number}", "POST", 202, 0.25, {"route": "publish"})
    assert all(len(write) <= 4096 for write in writes)
    await asyncio.sleep(0)
    assert len(writes) < 5
    written = [json.loads(line) for line in b"".join(writes).splitlines()]
    assert [line["request_id"] for line in written] == [f"a-{number}" for number in range(60)]
    assert {line["worker"] for line in written} == {2}


@pytest.mark.req("OPS-2")
async def test_a_line_of_structlog_comes_after_those_that_wait(lines: Lines) -> None:
    log_request("a-1", "POST", 202, 0.25, {"route": "publish"})
    LOG().warning("slow reader closed")
    assert [line["event"] for line in lines.all()] == ["request", "slow reader closed"]


async def test_lines_of_requests_obey_level_and_format(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    configure_logging("json", "warning")
    log_request("a-1", "POST", 202, 0.25, {"route": "publish"})
    await asyncio.sleep(0)
    assert capsysbinary.readouterr().out == b""
    configure_logging("console", "info")
    log_request("a-1", "POST", 202, 0.25, {"route": "publish"})
    assert b"info     request" in capsysbinary.readouterr().out


@pytest.mark.req("OPS-17")
def test_the_client_id_may_be_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    """Two applications of one vendor differ by the path."""
    configure_logging("json", "info")
    LOG().info("request", client_id="https://vendor.example/apps/viewer")
    assert json.loads(capsys.readouterr().out)["client_id"] == "https://vendor.example/apps/viewer"
