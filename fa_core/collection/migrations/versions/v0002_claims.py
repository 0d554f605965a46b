"""Which batches of a leader are not counted yet, and until when a worker has claimed each."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; what is not counted yet is anybody's."""
    op.create_table(
        "leader_batches",
        sa.Column("task", sa.LargeBinary, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
    op.execute(
        "INSERT INTO leader_batches SELECT DISTINCT task, batch, 0 FROM leader_reports "
        "WHERE outcome IS NULL AND batch IS NOT NULL"
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("leader_batches")
