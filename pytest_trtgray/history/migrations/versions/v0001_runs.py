"""Runs, their checks, layers' times, outputs, findings, and what was said.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON, nullable=False)


def _floats(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Float) for name in names]


def _owner(table: str, column: str) -> list[sa.Column[int] | sa.ForeignKeyConstraint]:
    """A column that refers to the row's owner, with which it goes."""
    name = f"fk_{table}_{column}"
    owner = {"check_id": "trtgray_checks", "run_id": "trtgray_runs"}[column]
    return [
        sa.Column(column, _ID, nullable=False, autoincrement=False),
        sa.ForeignKeyConstraint([column], [f"{owner}.id"], name=name, ondelete="CASCADE"),
    ]


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "trtgray_runs",
        sa.Column("id", _ID),
        sa.Column("uid", sa.String(64), nullable=False),
        sa.Column("time_utc", sa.DateTime, nullable=False),
        *map(_text, ("version", "python", "commit", "branch")),
        sa.Column("dirty", sa.Boolean),
        *map(_text, ("job", "host")),
        sa.Column("log_left_out", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trtgray_runs"),
        sa.UniqueConstraint("uid", name="uq_trtgray_runs_uid"),
    )
    op.create_index("ix_trtgray_runs_time_utc", "trtgray_runs", ["time_utc"])
    op.create_table(
        "trtgray_series",
        sa.Column("id", _ID),
        sa.Column("digest", sa.String(64), nullable=False),
        *map(_text, ("kind", "test", "engine", "device", "runtime")),
        *map(_json, ("identity", "shapes", "method")),
        sa.PrimaryKeyConstraint("id", name="pk_trtgray_series"),
        sa.UniqueConstraint("digest", name="uq_trtgray_series_digest"),
    )
    op.create_table(
        "trtgray_checks",
        sa.Column("id", _ID),
        *_owner("trtgray_checks", "run_id"),
        sa.Column("series_id", _ID, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        *map(_text, ("outcome", "summary")),
        *_floats("total_us", "change", "low", "high", "relative_l2", "clock_mhz"),
        _text("disturbed"),
        *map(_json, ("context", "numbers", "notes")),
        sa.PrimaryKeyConstraint("id", name="pk_trtgray_checks"),
        sa.ForeignKeyConstraint(["series_id"], ["trtgray_series.id"], name="fk_trtgray_checks_series_id"),
    )
    op.create_index("ix_trtgray_checks_run_id", "trtgray_checks", ["run_id"])
    op.create_index("ix_trtgray_checks_series", "trtgray_checks", ["series_id", "run_id"])
    op.create_table(
        "trtgray_layers",
        sa.Column("id", _ID),
        sa.Column("digest", sa.String(64), nullable=False),
        _text("key"),
        sa.PrimaryKeyConstraint("id", name="pk_trtgray_layers"),
        sa.UniqueConstraint("digest", name="uq_trtgray_layers_digest"),
    )
    op.create_table(
        "trtgray_layer_times",
        *_owner("trtgray_layer_times", "check_id"),
        sa.Column("layer_id", _ID, nullable=False, autoincrement=False),
        sa.Column("series_id", _ID, nullable=False),
        sa.Column("us", sa.Float, nullable=False),
        _text("outcome"),
        sa.PrimaryKeyConstraint("check_id", "layer_id", name="pk_trtgray_layer_times"),
        sa.ForeignKeyConstraint(["layer_id"], ["trtgray_layers.id"], name="fk_trtgray_layer_times_layer_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_trtgray_layer_times_series", "trtgray_layer_times", ["series_id", "layer_id", "check_id", "us"])
    op.create_table(
        "trtgray_outputs",
        *_owner("trtgray_outputs", "check_id"),
        sa.Column("position", sa.Integer, nullable=False, autoincrement=False),
        _text("name"),
        *(sa.Column(name, sa.BigInteger) for name in ("elements", "wrong", "non_finite")),
        *_floats("max_abs", "relative_l2"),
        _text("tolerance"),
        sa.PrimaryKeyConstraint("check_id", "position", name="pk_trtgray_outputs"),
    )
    op.create_table(
        "trtgray_findings",
        *_owner("trtgray_findings", "check_id"),
        sa.Column("position", sa.Integer, nullable=False, autoincrement=False),
        *map(_text, ("severity", "rule", "place", "what")),
        _json("evidence"),
        _text("remedy"),
        sa.PrimaryKeyConstraint("check_id", "position", name="pk_trtgray_findings"),
    )
    op.create_index("ix_trtgray_findings_rule", "trtgray_findings", ["rule"])
    op.create_table(
        "trtgray_log_records",
        *_owner("trtgray_log_records", "run_id"),
        sa.Column("position", sa.Integer, nullable=False, autoincrement=False),
        *map(_text, ("test", "severity", "producer", "phase")),
        sa.Column("time_s", sa.Float, nullable=False),
        _text("message"),
        sa.PrimaryKeyConstraint("run_id", "position", name="pk_trtgray_log_records"),
    )
