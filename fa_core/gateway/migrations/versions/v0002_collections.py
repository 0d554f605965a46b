"""Collections, and what devices uploaded to them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    numbers = ("closes", "last", "handed", "acknowledged", "waiting")
    op.create_table(
        "gateway_collections",
        sa.Column("task", sa.LargeBinary, primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in numbers),
    )
    op.create_table(
        "gateway_invitations",
        sa.Column("task", sa.LargeBinary, _owner(), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("invitation", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "gateway_uploads",
        sa.Column("task", sa.LargeBinary, _owner(), primary_key=True),
        sa.Column("device", sa.LargeBinary, primary_key=True),
        sa.Column("kind", sa.Integer, primary_key=True),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.UniqueConstraint("task", "serial"),
    )
    if op.get_bind().dialect.name == "postgresql":
        # Sealed shares and what they are proved with do not compress; trying costs more than storing them.
        op.execute("ALTER TABLE gateway_uploads ALTER COLUMN body SET STORAGE EXTERNAL")


def downgrade() -> None:
    """Drop every table, with what waits in them."""
    for table in ("gateway_uploads", "gateway_invitations", "gateway_collections"):
        op.drop_table(table)


def _owner() -> sa.ForeignKey:
    return sa.ForeignKey("gateway_collections.task", ondelete="CASCADE")
