"""What the Makefile calls; only the standard library is imported here."""
