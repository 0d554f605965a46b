"""SQLite and PostgreSQL behind one connection, and the versions of their tables."""
