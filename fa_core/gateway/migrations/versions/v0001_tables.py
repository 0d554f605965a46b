"""Rounds, slots, messages and timestamps."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    _rounds()
    _messages()
    op.create_table(
        "gateway_stamps",
        sa.Column("device", sa.LargeBinary, primary_key=True),
        sa.Column("stamp", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop every table."""
    for table in ("gateway_stamps", "gateway_letters", "gateway_seats", "gateway_rounds"):
        op.drop_table(table)


def _rounds() -> None:
    op.create_table(
        "gateway_rounds",
        sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("release", "node")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("stage", "serial")),
        sa.Column("invitation", sa.LargeBinary, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("room", "taken")),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("joining_until", "expires")),
        sa.UniqueConstraint("release", "node"),
    )
    op.create_table(
        "gateway_seats",
        sa.Column("round", sa.Integer, _owner(), primary_key=True),
        sa.Column("slot", sa.Integer, primary_key=True),
        sa.Column("release", sa.Text, nullable=False),
        sa.Column("device", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("device", "release"),
    )


def _messages() -> None:
    op.create_table(
        "gateway_letters",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("round", sa.Integer, _owner(), nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("slot", "stage")),
        *(sa.Column(name, sa.LargeBinary) for name in ("request", "reply")),
    )
    op.create_index("gateway_letters_by_seat", "gateway_letters", ["round", "slot"])
    if op.get_bind().dialect.name == "postgresql":
        # Sealed and masked bytes do not compress; trying costs more than storing them.
        for column in ("request", "reply"):
            op.execute(f"ALTER TABLE gateway_letters ALTER COLUMN {column} SET STORAGE EXTERNAL")


def _owner() -> sa.ForeignKey:
    return sa.ForeignKey("gateway_rounds.id", ondelete="CASCADE")
