"""Who may ask what: tokens, roles, certificates."""
