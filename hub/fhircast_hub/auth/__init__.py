"""Who asks: issuers and their keys, signed tokens, and what their claims mean."""
