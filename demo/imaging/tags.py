"""Patients and studies of the records in DICOM: UIDs and headers."""

from __future__ import annotations

import uuid
from datetime import datetime

from pydicom.dataset import Dataset

from demo.imaging.catalogue import Recipe
from demo.imaging.sources import header
from demo.records.store import Resource

_REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_SEX = {"male": "M", "female": "F", "other": "O"}


def derived_uid(*names: object) -> str:
    """The same UID for the same names (PS3.5 B.2, "UUID Derived UID")."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(map(str, names))).int}"


def person_name(patient: Resource) -> str:
    """Family^given^middle, with ideographs after = where the records have them (PS3.5 6.2.1)."""
    groups = [_components(patient, "ABC"), _components(patient, "IDE")]
    return "=".join(groups).rstrip("=")


def _components(patient: Resource, representation: str) -> str:
    name: Resource = next((each for each in patient["name"] if _written_in(each) == representation), {})
    given, *middle = name.get("given") or [""]
    return "^".join([name.get("family", ""), given, " ".join(middle)]).rstrip("^")


def _written_in(name: Resource) -> str:
    codes = [each["valueCode"] for each in name.get("extension", []) if each["url"] == _REPRESENTATION]
    return str(codes[0]) if codes else "ABC"


def identifier(resource: Resource, code: str) -> str:
    """The value of the identifier whose type has this code. Raises StopIteration where there is none."""
    found = (
        each["value"]
        for each in resource["identifier"]
        for coding in each.get("type", {}).get("coding", [])
        if coding["code"] == code
    )
    return str(next(found))


def study_uid(study: Resource) -> str:
    """The Study Instance UID of an ImagingStudy."""
    values = (each["value"] for each in study["identifier"] if each.get("system") == "urn:dicom:uid")
    return str(next(values)).removeprefix("urn:oid:")


def study_tags(study: Resource, patient: Resource, local_id: str) -> Dataset:
    """Attributes that all instances of a study share. Unknown attributes of type 2 are empty."""
    tags = Dataset()
    tags.SpecificCharacterSet = "ISO_IR 192"
    tags.PatientName, tags.PatientID = person_name(patient), identifier(patient, "MR")
    tags.PatientBirthDate = patient.get("birthDate", "").replace("-", "")
    tags.PatientSex = _SEX.get(patient["gender"], "")
    tags.StudyInstanceUID, tags.StudyID = study_uid(study), local_id
    tags.AccessionNumber, tags.StudyDescription = identifier(study, "ACSN"), study["description"]
    started = datetime.fromisoformat(study["started"])
    tags.StudyDate, tags.StudyTime = started.strftime("%Y%m%d"), started.strftime("%H%M%S")
    tags.TimezoneOffsetFromUTC = started.strftime("%z")
    tags.ReferringPhysicianName = ""
    return tags


def instance_tags(common: Dataset, series: Resource, recipe: Recipe, number: int) -> Dataset:
    """The header of one instance."""
    tags = Dataset()
    for part in (common, header(recipe.file)):
        tags.update(part)
    tags.ImageType = ["DERIVED", "SECONDARY"]
    tags.DerivationDescription = f"For demonstration, from {recipe.file} of pydicom; the patient is invented"
    tags.SeriesInstanceUID, tags.SeriesNumber = series["uid"], series["number"]
    tags.Modality, tags.SeriesDescription = series["modality"]["code"], series["description"]
    tags.SOPInstanceUID, tags.InstanceNumber = derived_uid(series["uid"], number), number
    tags.BurnedInAnnotation = "NO"
    if recipe.window:
        tags.WindowCenter, tags.WindowWidth = recipe.window
        _place(tags, number)
    return tags


def _place(tags: Dataset, number: int) -> None:
    """Slices one behind the other, in mm: the example has only one position, of no real patient."""
    depth = (number - 1) * float(tags.get("SliceThickness") or 1)
    tags.FrameOfReferenceUID = derived_uid(tags.StudyInstanceUID, "frame of reference")
    tags.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    tags.ImagePositionPatient = [0, 0, depth]
    tags.SliceLocation = depth
