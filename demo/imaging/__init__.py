"""Two image archives, with DICOMweb. The images come with pydicom, the patients are those of demo.records."""

from demo.imaging.archive import Archive, archive_for
from demo.imaging.server import make_app

__all__ = ["Archive", "archive_for", "make_app"]
