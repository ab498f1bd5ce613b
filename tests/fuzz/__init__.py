"""Random input for as long as one likes: ``python -m tests.fuzz --seconds 60``. Not part of ``make test``."""
