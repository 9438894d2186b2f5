"""Access tokens: the issuers and their keys, the verification of tokens, the meaning of claims."""
