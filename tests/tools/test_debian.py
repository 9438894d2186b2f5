"""tools/debian.py: what a minimal Debian takes over from this machine."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.running import shell_program
from tools import debian
from tools.debian import (
    Debian,
    DebianError,
    Source,
    apt_proxies,
    files_named,
    package_variables,
    sources,
    sources_of,
    why_not,
)

MAIN = Source("http://mirror.example/debian/", "bookworm", "main")
SECURITY = Source("http://mirror.example/debian-security/", "bookworm-security", "main")
FIRMWARE = Source("http://mirror.example/debian/", "bookworm", "non-free-firmware")
#: What apt-get says of its sources, another vendor's among them, and one that is not fetched yet.
LISTED = """\
Debian http://mirror.example/debian-security/ bookworm-security main
Debian http://mirror.example/debian/ bookworm main
Debian http://mirror.example/debian/ bookworm main
Vendor http://vendor.example/ stable main
 http://other.example/  main
"""


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """A program of this name is found first."""
    shell_program(folder / name, script)
    monkeypatch.setattr(debian, "PATH", f"{folder}:/usr/bin:/bin")


def apt_get(folder: Path, monkeypatch: pytest.MonkeyPatch, listed: str, exit_code: int = 0) -> None:
    (folder / "listed").write_text(listed)
    script = f'case "$1" in indextargets) cat {folder}/listed ;; *) echo no net >&2; exit {exit_code} ;; esac'
    program(folder, monkeypatch, "apt-get", script)


def test_debians_archives_are_those_of_apt_the_main_one_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt_get(tmp_path, monkeypatch, LISTED)
    assert sources() == [MAIN, SECURITY]


def test_a_machine_whose_apt_knows_no_debian_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt_get(tmp_path, monkeypatch, "Ubuntu http://ubuntu.example/ noble main\n")
    with pytest.raises(
        DebianError, match="must include a Debian mirror at http or https, and they have none of Debian"
    ):
        sources()


def test_what_a_command_said_that_failed_is_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt_get(tmp_path, monkeypatch, LISTED, exit_code=100)
    with pytest.raises(DebianError, match=r"no net\n.*exit code 100"):
        sources()


def test_a_mirror_that_no_browser_could_ask_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """debootstrap cannot either."""
    apt_get(tmp_path, monkeypatch, "Debian mirror+file:/etc/apt/mirrors/debian.list bookworm main\n")
    with pytest.raises(DebianError, match=r"at http or https, and they have mirror\+file:"):
        sources()


def test_a_command_that_is_not_there_is_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "PATH", str(tmp_path))
    with pytest.raises(DebianError, match="`apt-get` does not start"):
        sources()


def test_apts_proxies_are_known_by_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As apt-config says them to a shell; no proxy at all is called DIRECT."""
    program(tmp_path, monkeypatch, "apt-config", """echo "http='http://proxy.example:3142'"; echo "https='DIRECT'" """)
    assert apt_proxies() == {"http": "http://proxy.example:3142"}
    program(tmp_path, monkeypatch, "apt-config", "exit 0")
    assert apt_proxies() == {}


def test_a_command_in_it_has_its_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the variables about packages; mounts and processes are in namespaces of their own."""
    monkeypatch.setattr(os, "environ", {"HOME": "/somewhere", "PIP_CERT": "/ca.pem"})
    words = Debian(tmp_path / "root", "trixie", [MAIN]).command("make", "demo", cwd="/srv/clone")
    assert words[:3] == ("unshare", "--mount", "--pid")
    inside = words[words.index("env") :]
    assert inside[:3] == ("env", "-i", "--chdir=/srv/clone")
    assert inside[-2:] == ("make", "demo")
    assert {"HOME=/root", "PIP_CERT=/ca.pem"} < set(inside)
    assert "HOME=/somewhere" not in inside


def test_another_release_has_the_same_archives_under_its_name() -> None:
    assert sources_of("trixie", [MAIN, SECURITY, FIRMWARE]) == [
        Source(MAIN.mirror, "trixie", "main"),
        Source(SECURITY.mirror, "trixie-security", "main"),
    ]


@contextmanager
def mirror(folder: Path) -> Iterator[str]:
    """A mirror of these files; as a proxy it is asked by whole URLs, of which the path counts."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            return str(folder / urlsplit(path).path.lstrip("/"))

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_a_mirror_is_asked_whether_it_has_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a proxy where there is one; why it has not is said."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    (tmp_path / "dists" / "trixie").mkdir(parents=True)
    (tmp_path / "dists" / "trixie" / "Release").touch()
    with mirror(tmp_path) as url:
        assert why_not(Source(url, "trixie", "main"), {}) == ""
        assert why_not(Source(f"{url}/", "trixie", "main"), {}) == ""
        missing = why_not(Source(url, "forky", "main"), {})
        assert missing == f"{url}/dists/forky/Release: HTTP Error 404: File not found"
        assert why_not(Source("http://127.0.0.1:9", "trixie", "main"), {"http": url}) == ""
    assert "refused" in why_not(Source(url, "trixie", "main"), {}), "nobody listens any more"


def test_variables_about_packages_are_taken_and_no_others() -> None:
    taken = {"PIP_CERT": "/a", "npm_config_cafile": "/b", "https_proxy": "c", "NO_PROXY": "d", "SSL_CERT_FILE": "/e"}
    taken |= {"NODE_EXTRA_CA_CERTS": "/f", "REQUESTS_CA_BUNDLE": "/g", "CURL_CA_BUNDLE": "/h"}
    others = {"HOME": "/h", "PATH": "/bin", "FHIRCAST_PORT": "1", "PYTHONPATH": "/x", "AWS_SECRET_ACCESS_KEY": "s"}
    assert package_variables(taken | others) == taken


def test_files_that_settings_name_are_taken_too(tmp_path: Path) -> None:
    """Folders and addresses are not."""
    (tmp_path / "ca.pem").touch()
    settings = (
        f"[global]\ncert = {tmp_path}/ca.pem\nfolder = {tmp_path}\nproxy = http:/{tmp_path}/ca.pem\nx={tmp_path}/no"
    )
    assert list(files_named([settings])) == [tmp_path / "ca.pem"]
