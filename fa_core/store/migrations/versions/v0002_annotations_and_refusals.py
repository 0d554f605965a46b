"""Annotations of trends, and requests that a ledger or a policy refused."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "annotations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("plan", sa.Text),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "refusals",
        sa.Column("release", sa.Text, primary_key=True),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("plan", "plan_hash", "population", "reason", "at")
        ),
    )
    op.create_index("refusals_by_time", "refusals", ["at"])


def downgrade() -> None:
    """Drop both tables."""
    for table in ("refusals", "annotations"):
        op.drop_table(table)
