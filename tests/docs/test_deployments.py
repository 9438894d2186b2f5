"""compose.production.yaml and kubernetes.yaml of docs/how-to: valid by the tools' own schemas, and settings that the hub takes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fhircast_hub.settings.reading import load
from fhircast_hub.settings.serving import require_all
from fhircast_hub.settings.settings import Settings
from tests.certificates import make_certificate
from tests.docs.blocks import titled
from tests.docs.checks import settings_file
from tests.process.nginx import NGINX, needs_nginx
from tools.site import ROOT

HOW_TO = ROOT / "docs" / "how-to"
COMPOSE, KUBERNETES = HOW_TO / "compose.production.yaml", HOW_TO / "kubernetes.yaml"
KUBERNETES_VERSION = "1.34"
#: What the Dockerfile sets. The environment of a deployment wins over this, and this wins over hub.toml.
IMAGE = dict(re.findall(r"(FHIRCAST_\w+)=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8")))
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
OBJECTS: dict[str, Any] = {each["kind"]: each for each in yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8"))}


def loaded(folder: Path, toml: str, environ: Mapping[str, str]) -> Settings:
    """The settings of a container with this file. Its secrets and the database's authority are files of the test."""
    authority, _ = make_certificate(folder)
    environ = {name: re.sub(r"(?<=sslrootcert=).*", str(authority), value) for name, value in environ.items()}
    settings = load(settings_file(toml, folder), IMAGE | environ)
    require_all(settings)
    return settings


def run(*command: object) -> str:
    """What the command says. Fails with that, where the command fails."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def composed(path: Path) -> dict[str, Any]:
    """The file as docker-compose reads the file: checked against its schema, and with all anchors in place."""
    program = shutil.which("docker-compose")
    assert program, "docker-compose is missing; make test installs it"
    found: dict[str, Any] = yaml.safe_load(run(program, "-f", path, "config"))
    return found


def test_docker_compose_takes_the_file() -> None:
    assert set(composed(COMPOSE)["services"]) == {"net", "hub", "nginx"}


def test_docker_compose_would_refuse_a_misspelt_key(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text(encoding="utf-8").replace("stop_grace_period", "stop_grace_time"))
    with pytest.raises(AssertionError, match="stop_grace_time"):
        composed(wrong)


def test_composes_settings_are_what_serve_needs(tmp_path: Path) -> None:
    hub = SERVICES["hub"]
    settings = loaded(tmp_path, titled("docs/how-to/docker.md", "hub.toml").text, hub["environment"])
    assert (settings.is_shared, settings.host, settings.port, settings.allow_insecure) == (
        True,
        "127.0.0.1",
        8080,
        False,
    )
    assert "sslmode=verify-full" in hub["environment"]["FHIRCAST_STORE"]
    workers = int(hub["command"][hub["command"].index("--workers") + 1])
    assert hub["mem_limit"] == f"{workers * settings.max_bytes >> 30}g"


@pytest.mark.req("OPS-5")
def test_composes_services_may_do_no_more_than_they_need() -> None:
    for name, service in SERVICES.items():
        rights = {key: service[key] for key in ("read_only", "cap_drop", "security_opt")}
        assert rights == {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}, name
        assert not service.keys() & {"privileged", "cap_add", "pid", "ipc", "devices"}, name
        assert all(volume.endswith(":ro") for volume in service.get("volumes", [])), name
    assert [service["ports"] for service in SERVICES.values() if "ports" in service] == [["443:443"]]
    assert {service.get("network_mode") for service in SERVICES.values()} == {None, "service:net"}


def test_the_page_names_each_file_that_compose_mounts() -> None:
    page = (HOW_TO / "docker.md").read_text(encoding="utf-8")
    mounted = [volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    secrets = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["secrets"]
    for path in [*mounted, *(secret["file"] for secret in secrets.values())]:
        assert f"`{path.removeprefix('./')}`" in page


@needs_nginx
def test_nginx_reads_both_of_its_files(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    site = tmp_path / "site.conf"
    example = (ROOT / "docs" / "nginx.conf.example").read_text(encoding="utf-8")
    for name, path in {
        "/etc/ssl/certs/hub.pem": certificate,
        "/etc/ssl/private/hub.key": key,
        "/var/log/nginx/error.log": tmp_path / "error.log",
    }.items():
        example = example.replace(name, str(path))
    site.write_text(example)
    frame = (HOW_TO / "nginx.production.conf").read_text(encoding="utf-8")
    assert frame.count("/etc/nginx/fhircast.conf") == 1
    main = tmp_path / "main.conf"
    main.write_text(frame.replace("/tmp/", f"{tmp_path}/").replace("/etc/nginx/fhircast.conf", str(site)))
    run(NGINX, "-t", "-c", main, "-e", tmp_path / "error.log")


def validated(path: Path) -> str:
    """What kubernetes-validate says of the file: an unknown field fails."""
    return run(sys.executable, "-m", "kubernetes_validate", "--strict", "-k", KUBERNETES_VERSION, path)


def test_kubernetes_takes_each_object() -> None:
    assert len(re.findall(r"^INFO ", validated(KUBERNETES), re.MULTILINE)) == len(OBJECTS)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("enableServiceLinks", "enableServiceLink"), ("replicas: 2", 'replicas: "2"'), ("pathType: Prefix", "pathTyp: x")],
)
def test_kubernetes_would_refuse_a_mistake(right: str, wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(KUBERNETES.read_text(encoding="utf-8").replace(right, wrong))
    with pytest.raises(AssertionError, match="ERROR "):
        validated(path)


def container() -> dict[str, Any]:
    (found,) = OBJECTS["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_kubernetes_settings_are_what_serve_needs(tmp_path: Path) -> None:
    environ = {each["name"]: each["value"] for each in container()["env"]}
    settings = loaded(tmp_path, OBJECTS["ConfigMap"]["data"]["hub.toml"], environ)
    assert (settings.is_shared, settings.host, settings.allow_insecure) == (True, "0.0.0.0", False)
    assert settings.port == container()["ports"][0]["containerPort"]
    assert container()["resources"]["limits"]["memory"] == f"{2 * settings.max_bytes >> 30}Gi"
    paths = OBJECTS["Ingress"]["spec"]["rules"][0]["http"]["paths"]
    assert [each["path"] for each in paths] == ["/api/hub", "/sessions"]
    assert settings.public_url == f"https://{OBJECTS['Ingress']['spec']['rules'][0]['host']}{paths[0]['path']}"
    timeout = OBJECTS["Ingress"]["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"]
    assert int(timeout) > 2 * settings.ping_seconds


def test_the_objects_of_kubernetes_belong_together() -> None:
    pod = OBJECTS["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert OBJECTS["Service"]["spec"]["selector"] == labels
    selectors = [
        OBJECTS["Deployment"]["spec"]["selector"],
        OBJECTS["PodDisruptionBudget"]["spec"]["selector"],
        OBJECTS["NetworkPolicy"]["spec"]["podSelector"],
        pod["spec"]["topologySpreadConstraints"][0]["labelSelector"],
    ]
    assert all(selector == {"matchLabels": labels} for selector in selectors)
    assert Counter(each["metadata"].get("namespace") for each in OBJECTS.values()) == {"fhircast": 7, None: 1}
    assert pod["spec"]["serviceAccountName"] == OBJECTS["ServiceAccount"]["metadata"]["name"]
    assert {each["name"] for each in container()["volumeMounts"]} == {each["name"] for each in pod["spec"]["volumes"]}


@pytest.mark.req("OPS-5")
def test_the_pods_of_kubernetes_may_do_no_more_than_they_need() -> None:
    pod = OBJECTS["Deployment"]["spec"]["template"]["spec"]
    assert (pod["enableServiceLinks"], pod["automountServiceAccountToken"]) == (False, False)
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    rights = container()["securityContext"]
    assert (rights["allowPrivilegeEscalation"], rights["readOnlyRootFilesystem"]) == (False, True)
    assert rights["capabilities"] == {"drop": ["ALL"]}
    pause = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + 10  # OPS-3: the hub exits within 10 s
