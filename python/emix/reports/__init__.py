"""Results: finished runs as records, what they say and how surely, and the pages made of them. ``docs/reports.md``."""
