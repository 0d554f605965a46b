"""The catalogue, the ledger and the transparency log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    _ledger()
    _catalogue()
    _log()


def downgrade() -> None:
    """Drop every table."""
    for table in ("checkpoints", "log", "bodies", "failures", "releases", "ledger"):
        op.drop_table(table)


def _ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("population", sa.Text, nullable=False),
        sa.Column("release", sa.Text, unique=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.create_index("ledger_by_population", "ledger", ["population", "kind"])


def _catalogue() -> None:
    text = ("plan", "plan_hash", "population", "engine")
    facts = ("invited", "joined", "dropped", "counted")
    op.create_table(
        "releases",
        sa.Column("id", sa.Text, sa.ForeignKey("ledger.release"), primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in text),
        *(sa.Column(name, sa.Boolean, nullable=False) for name in ("simulated", "synthetic")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("created", "window_start", "window_end")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in facts),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("accounting", "cost")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("results", "suppressed", "broken")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("release_sha256", "estimates_sha256")),
    )
    op.create_index("releases_by_time", "releases", ["created"])
    op.create_index("releases_by_plan", "releases", ["plan", "created"])
    op.create_index("releases_by_population", "releases", ["population", "created"])
    op.create_table(
        "failures",
        sa.Column("release", sa.Text, primary_key=True),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("plan", "plan_hash", "population", "stage", "reason", "at")
        ),
    )
    op.create_index("failures_by_time", "failures", ["at"])
    op.create_table(
        "bodies",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def _log() -> None:
    op.create_table(
        "log",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("entry", sa.LargeBinary, nullable=False),
        sa.Column("leaf", sa.LargeBinary, nullable=False),
    )
    op.create_index("log_by_subject", "log", ["subject", "kind"])
    op.create_table(
        "checkpoints",
        sa.Column("size", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("note", sa.LargeBinary, nullable=False),
    )
