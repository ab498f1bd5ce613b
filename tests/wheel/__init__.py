"""``make wheel``: a built wheel in fresh environments."""
