"""Layers' times are only appended: no index by layer.

SQLite uses its pages again for the next runs, and gives them back when runs are pruned.

Revision ID: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_trtgray_layer_times_series", "trtgray_layer_times")
