"""Authentication, roles, sessions and the audit trail."""
