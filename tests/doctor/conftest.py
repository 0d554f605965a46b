"""A PostgreSQL for the doctor to look at."""

from tests.store.conftest import new_database

__all__ = ["new_database"]
