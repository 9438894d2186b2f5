"""`make release`: packages, their checks, and the notes. docs/releasing.md has the steps. Nothing here publishes anything."""
