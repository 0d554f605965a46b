"""Tasks and reports of a leader; tasks, reports and batches of a helper."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    _leader()
    _helper()


def downgrade() -> None:
    """Drop every table."""
    for table in ("leader_tasks", "leader_reports", "helper_tasks", "helper_reports", "helper_batches"):
        op.drop_table(table)


def _bytes(*names: str, nullable: bool = False) -> list[sa.Column[bytes]]:
    return [sa.Column(name, sa.LargeBinary, nullable=nullable) for name in names]


def _key(*names: str) -> list[sa.Column[bytes]]:
    return [sa.Column(name, sa.LargeBinary, primary_key=True) for name in names]


def _number(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.Integer, nullable=False) for name in names]


def _leader() -> None:
    op.create_table(
        "leader_tasks",
        *_key("id"),
        sa.Column("release", sa.LargeBinary, nullable=False, unique=True),
        *_bytes("signed", "plan"),
        sa.Column("stage", sa.Text, nullable=False),
        *_bytes("verify_key", "total", "checksum"),
        *_number("batches", "count"),
        *_bytes("sums", nullable=True),
    )
    op.create_table(
        "leader_reports",
        *_key("task", "device"),
        *_bytes("id", "digest"),
        *_bytes("body", nullable=True),
        *(sa.Column(name, sa.Integer) for name in ("batch", "outcome")),
        sa.UniqueConstraint("task", "id"),
    )
    op.create_index("leader_reports_to_verify", "leader_reports", ["task", "outcome", "batch"])


def _helper() -> None:
    op.create_table(
        "helper_tasks",
        *_key("id"),
        sa.Column("release", sa.LargeBinary, nullable=False, unique=True),
        *_bytes("digest", "task", "plan"),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("closes", sa.BigInteger, nullable=False),
        *_bytes("sealing", "verify_key", "total", "checksum"),
        *_number("count"),
        *_bytes("witness", "share", nullable=True),
    )
    op.create_table(
        "helper_reports", *_key("task", "device"), *_bytes("id"), sa.UniqueConstraint("task", "id")
    )
    op.create_table(
        "helper_batches",
        *_key("task"),
        sa.Column("number", sa.Integer, primary_key=True),
        *_bytes("digest", "reply"),
    )
