"""The reader of the pages finds what is wrong with a page, so that the tests of the pages can fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fhircast_hub.settings.errors import SettingsError
from tests.docs import reader as reading
from tests.docs.blocks import Block, blocks
from tests.docs.checks import check_json, check_shell, check_toml
from tests.docs.reader import Reader
from tests.process.hub_process import HubProcess, hub_process

PAGE = """# Page

<!-- not run: needs Docker -->

```sh title="Terminal 2"
docker run
```

    ```not a fence

1. In a list:

   ```python title="follow.py"
   if x:
       pass
   ```
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("dev"), "dev", public_url=None) as hub:
        yield hub


@pytest.fixture
def reader(tmp_path: Path, hub: HubProcess) -> Iterator[Reader]:
    with Reader(tmp_path / "reader", hub) as reader:
        yield reader


@contextmanager
def in_vain(match: str) -> Iterator[None]:
    """What the reader waits for within the block does not come, which costs a second only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PATIENCE", 1)
        with pytest.raises(AssertionError, match=match):
            yield


def block(text: str, language: str = "sh", title: str = "") -> Block:
    return Block("page.md", 7, language, title, text)


def test_the_blocks_of_a_page() -> None:
    shell, python = blocks("page.md", PAGE.replace("    ```not a fence\n", ""))
    assert shell == Block("page.md", 5, "sh", "Terminal 2", "docker run\n", "needs Docker")
    assert (python.file, python.text, python.not_run) == ("follow.py", "if x:\n    pass\n", "")
    assert (shell.file, python.where) == ("", "page.md:12")


def test_a_block_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"page\.md:1: the code block has no end"):
        blocks("page.md", "```sh\nls\n")


def test_a_command_that_fails_is_found(reader: Reader) -> None:
    with in_vain(r"page\.md:7: these commands failed"):
        reader.type(block("false\necho behind\n"))


def test_a_failure_within_a_pipe_is_found(reader: Reader) -> None:
    with in_vain("these commands failed"):
        reader.type(block("false | cat\n"))


def test_a_command_that_does_not_end_is_found(reader: Reader) -> None:
    with in_vain("did not end"):
        reader.type(block("sleep 60\n"))


def test_what_is_not_shown_is_found(reader: Reader) -> None:
    reader.type(block("echo one; echo two\n"))
    with in_vain("did not show 'one'"):
        reader.expect(block("two\none\n", "text"))
    reader.expect(block("on…\ntwo\n", "text"))
    reader.type(block("echo three\n"))
    with in_vain("did not show 'one'"):
        reader.expect(block("one\n", "text"))


def test_what_an_earlier_block_has_told_does_not_count_again(reader: Reader) -> None:
    reader.type(block("echo in sync; echo refused; echo in sync\n"))
    for told in ("in sync\n", "refused\n", "in sync\n"):
        reader.expect(block(told, "text"))
    with in_vain("did not show 'in sync', but: \\[\\]"):
        reader.expect(block("in sync\n", "text"))


def test_what_the_hub_does_not_show_is_found(reader: Reader) -> None:
    reader.type(block("fhircast-hub dev   # Ctrl-C ends the hub\n"))
    reader.expect(block("INSECURE…\n", "text", "Terminal 1 shows"))
    with in_vain("the hub did not show 'SECURE'"):
        reader.expect(block("INSECURE…\nSECURE\n", "text", "Terminal 1 shows"))


def test_terminals_keep_their_variables_and_share_the_folder(reader: Reader) -> None:
    reader.save(block("text\n", "text", "file.txt"))
    reader.type(block("A=1\n"))
    reader.type(block("cat file.txt\n", title="Terminal 2"))
    reader.expect(block("text\n", "text"))
    reader.type(block('echo "A is $A"\n', title="Terminal 1"))
    reader.expect(block("A is 1\n", "text"))


@pytest.mark.parametrize("title", ["/etc/hub.conf", "../hub.conf", "a/../../hub.conf"])
def test_nothing_is_written_outside_of_the_readers_folder(reader: Reader, title: str) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:7: (?:no file|.* is outside)"):
        reader.save(block("text\n", "text", title))


def test_the_address_of_the_hub_is_replaced(reader: Reader, hub: HubProcess) -> None:
    reader.type(block("echo http://localhost:8080/x\n"))
    reader.expect(block("http://localhost:8080/x\n", "text"))
    assert reader.replaced("localhost:8080") == f"localhost:{hub.port}"


@pytest.mark.parametrize(
    "text",
    [
        "if\n",
        "fhircast-hub serv\n",
        "fhircast-hub serve --worker 4\n",
        "A=1 fhircast-hub store update\n",
        "x=$(fhircast-hub tokens)\n",
    ],
)
def test_commands_that_do_not_exist_are_found(tmp_path: Path, text: str) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:7"):
        check_shell(block(text), tmp_path)


def test_settings_that_do_not_exist_are_found(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="PORTS"):
        check_toml(block("PORTS = 8080\n", "toml"), tmp_path)


def test_json_may_leave_parts_out(tmp_path: Path) -> None:
    check_json(block('{"a": [1, …], …}', "json"), tmp_path)
    with pytest.raises(ValueError, match="Expecting"):
        check_json(block('{"a": …}', "json"), tmp_path)
