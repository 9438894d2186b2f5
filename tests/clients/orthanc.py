"""A real image archive: Debian's Orthanc with its DICOMweb plugin, on a loopback port, with files of its own."""

from __future__ import annotations

import glob
import io
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from pydicom import examples
from pydicom.uid import generate_uid

from tests.ports import free_port
from tools.packages import DICOMWEB, PATH

ORTHANC = shutil.which("Orthanc", path=PATH)
PLUGIN = next((path for pattern in DICOMWEB for path in glob.glob(pattern)), None)
#: Seconds until Orthanc must answer, or be gone.
PATIENCE = 20


def instance(patient: dict[str, str], uid: str, accession: str) -> bytes:
    """A DICOM file of a patient's study: one of pydicom's examples, with other tags."""
    image = examples.ct
    tags = patient | {"StudyInstanceUID": uid, "AccessionNumber": accession}
    for name, value in tags.items():
        setattr(image, name, value)
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SeriesInstanceUID = generate_uid()
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file = io.BytesIO()
    image.save_as(file)
    return file.getvalue()


class Archive:
    """An archive that runs; `base` is its DICOMweb address."""

    def __init__(self, origin: str) -> None:
        self.base = f"{origin}/dicom-web"

    def store(self, patient: dict[str, str], uid: str, accession: str) -> None:
        """Store a study over STOW-RS (DICOM PS3.18 10.5)."""
        part = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + instance(patient, uid, accession) + b"\r\n--x--\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary=x'
        with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
            answer = client.post(f"{self.base}/studies", content=part, headers={"Content-Type": kind})
        assert answer.status_code == 200, answer.text


@contextmanager
def archive(folder: Path) -> Iterator[Archive]:
    """An Orthanc without authentication that only this machine reaches."""
    assert ORTHANC, "expected Orthanc: apt-get install orthanc"
    assert PLUGIN, "expected Orthanc's DICOMweb plugin: apt-get install orthanc-dicomweb"
    port = free_port()
    settings = {
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [PLUGIN],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    try:
        running = Archive(f"http://127.0.0.1:{port}")
        _wait(running.base, process, folder / "log")
        yield running
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _wait(base: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < deadline:
            assert process.poll() is None, log.read_text(errors="replace")
            try:
                client.get(f"{base}/studies")
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
    raise AssertionError(f"Orthanc did not answer within {PATIENCE} s: {log.read_text(errors='replace')}")
