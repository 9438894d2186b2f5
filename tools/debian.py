"""A minimal Debian in a folder: made by debootstrap, with this machine's mirror and package settings, and entered by chroot."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tools.packages import PATH

#: Packages of a newcomer's Debian, besides Debian's minimal set.
GIVEN = ("python3", "make", "git")
#: Seconds that a mirror has to answer.
MIRROR_PATIENCE = 20

#: Variables that say where packages come from, and by which proxies and certificates.
_VARIABLES = re.compile(
    r"(?:pip|npm_config)_\w+|\w+_proxy|(?:ssl_cert|curl_ca|requests_ca|node_extra_ca)\w*", re.IGNORECASE
)
#: Files with the same settings.
_SETTINGS = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf", "~/.npmrc")
#: The package ca-certificates takes these in when it is installed.
_LOCAL_CERTIFICATES = "/usr/local/share/ca-certificates"

#: A mount and a process namespace of its own: mounts and processes end with it, however it ends. Nothing is ever mounted outside.
_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")
#: The last `exit` keeps the shell as process 1. Otherwise the command itself would be process 1, and Ctrl-C would not end the command.
_ENTER = """
mount -t proc proc "$1/proc" && mount --rbind /sys "$1/sys" && mount --rbind /dev "$1/dev" || exit 1
root=$1; shift
chroot "$root" "$@"
exit $?
"""


class DebianError(Exception):
    """The Debian cannot be made here; the text says why."""


@dataclass(frozen=True)
class Source:
    """A line of apt's sources: `bookworm-security` is the codename of an archive, `main` a component of it."""

    mirror: str
    codename: str
    component: str


def sources() -> list[Source]:
    """Debian's archives that apt of this machine knows, the main one first. Raises DebianError where it knows none."""
    _call("apt-get", "--quiet", "update")
    wanted = "$(ORIGIN) $(REPO_URI) $(CODENAME) $(COMPONENT)"
    listed = _call("apt-get", "indextargets", "--format", wanted, "Created-By: Packages").splitlines()
    found = {Source(*words[1:]) for line in listed if (words := line.split())[:1] == ["Debian"] and len(words) == 4}
    usable = [source for source in found if source.mirror.startswith(("http://", "https://"))]
    if not usable:
        got = " ".join(sorted({source.mirror for source in found})) or "none of Debian"
        raise DebianError(f"the sources of apt must include a Debian mirror at http or https, and they have {got}")
    return sorted(usable, key=lambda source: (len(source.codename), source.codename, source.mirror, source.component))


def sources_of(suite: str, known: Iterable[Source]) -> list[Source]:
    """The same archives for another release: `bookworm-security` becomes `trixie-security`."""
    return [
        Source(source.mirror, re.sub(r"\A[a-z]+", suite, source.codename), source.component)
        for source in known
        if source.component == "main"
    ]


def why_not(source: Source, proxies: Mapping[str, str]) -> str:
    """Why this archive cannot be had, or "" where it can."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(dict(proxies) or None))
    url = f"{source.mirror.rstrip('/')}/dists/{source.codename}/Release"
    try:
        with opener.open(url, timeout=MIRROR_PATIENCE):
            return ""
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {str(error) or type(error).__name__}"


def apt_proxies() -> dict[str, str]:
    """The proxies of apt's own settings, by scheme; only apt reads these."""
    shell = _call("apt-config", "shell", "http", "Acquire::http::Proxy", "https", "Acquire::https::Proxy")
    found = dict(word.split("=", 1) for word in shlex.split(shell))
    return {scheme: proxy for scheme, proxy in found.items() if proxy not in ("", "DIRECT")}


def package_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Of an environment, the variables that say where packages come from."""
    return {name: value for name, value in environ.items() if _VARIABLES.fullmatch(name)}


class Debian:
    """A minimal Debian in `folder`, which does not exist yet. Root only."""

    def __init__(self, folder: Path, suite: str, known: Iterable[Source]) -> None:
        self.folder, self._suite = folder, suite
        self._sources = sources_of(suite, known)
        self._variables = package_variables(os.environ)

    @cached_property
    def _proxies(self) -> dict[str, str]:
        return apt_proxies()

    def why_not(self) -> str:
        """Why the mirror of this machine does not give this release, or "" where it does."""
        return why_not(self._sources[0], self._proxies)

    def path(self, name: str) -> Path:
        """Where this machine finds a file of the Debian; `name` is its absolute path there."""
        return self.folder / name.lstrip("/")

    def make(self) -> None:
        """Raises DebianError."""
        mirror = self._sources[0].mirror
        given = (*GIVEN, "ca-certificates") if mirror.startswith("https:") else GIVEN
        options = ("--variant=minbase", f"--include={','.join(given)}")
        proxies = {f"{scheme}_proxy": proxy for scheme, proxy in self._proxies.items()}
        _call(*_UNSHARE, "debootstrap", *options, self._suite, str(self.folder), mirror, environment=proxies)
        lines = (f"deb {source.mirror} {source.codename} {source.component}\n" for source in self._sources)
        self._write("/etc/apt/sources.list", "".join(lines))
        # The network is this machine's, whose ports Debian's nginx and Orthanc must not take: no service starts here.
        self._write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", mode=0o755)
        self._take_settings()

    def command(self, *words: str, cwd: str, user: str = "root", home: str = "/root") -> tuple[str, ...]:
        """The words that run this command in the Debian, in a folder of the Debian."""
        variables = {"HOME": home, "USER": user, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        given = [f"{name}={value}" for name, value in (variables | self._variables).items()]
        inside = ("env", "-i", f"--chdir={cwd}", *given, *words)
        return (*_UNSHARE, "sh", "-c", _ENTER, "sh", str(self.folder), *inside)

    def call(self, *words: str, cwd: str = "/") -> str:
        """Runs a command in it to its end; its output. Raises DebianError."""
        return _call(*self.command(*words, cwd=cwd))

    def _write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def _copy(self, path: Path) -> None:
        """A file of this machine, to the same place."""
        target = self.path(str(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy(path, target)

    def _take_settings(self) -> None:
        """How names are resolved; apt's, pip's and npm's settings, the files that they name, and this machine's own certificates."""
        apt = _call("apt-config", "dump", "Acquire")
        for scheme in {"http", "https"} - self._proxies.keys():
            if proxy := self._variables.get(f"{scheme}_proxy"):  # apt reads them, but `su -` takes them away
                apt += f'Acquire::{scheme}::Proxy "{proxy}";\n'
        self._write("/etc/apt/apt.conf.d/99machine", apt)
        settings = [path for name in _SETTINGS if (path := Path(name).expanduser()).is_file()]
        texts = [apt, *self._variables.values(), *(path.read_text(encoding="utf-8") for path in settings)]
        network = [path for path in (Path("/etc/resolv.conf"), Path("/etc/hosts")) if path.is_file()]
        certificates = [path for path in Path(_LOCAL_CERTIFICATES).glob("*.crt") if path.is_file()]
        for path in {*network, *settings, *files_named(texts), *certificates}:
            self._copy(path)


def files_named(texts: Iterable[str]) -> Iterator[Path]:
    """The files of this machine that settings name by an absolute path."""
    for text in texts:
        for name in re.findall(r"(?<![\w:./])/[^\s'\"=,;:]+", text):
            if (path := Path(name)).is_file():
                yield path


def _call(*words: str, environment: Mapping[str, str] | None = None) -> str:
    """Runs a command to its end: its output. Raises DebianError with all that it said where it fails."""
    env = {**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8", **(environment or {})}
    try:
        done = subprocess.run(
            words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise DebianError(f"`{words[0]}` does not start: {error}") from None
    if done.returncode:
        shown = shlex.join(word for word in words if "\n" not in word)
        raise DebianError(f"{done.stdout}{done.stderr}`{shown}` ended with exit code {done.returncode}")
    return done.stdout
