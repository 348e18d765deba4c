"""The tables of a history; :mod:`migrations <pytest_trtgray.history.migrations>` makes and changes them.

A *series* is what may be compared over time: one check of one test on one engine, of one identity (device, runtime,
versions, precision, shapes, method).

Rows of layers' times stand in the order in which runs come, and have no other index: a run's 200 rows are appended on
three pages. In an index by layer each of them would go to a page of its own, which took twice as long as all the rest
of storing a run, and half of the file. One layer's times over all runs are looked up check by check instead.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

HEAD = 2
"""The schema of this version; a database of a later one is left alone."""
USABLE_FROM = 1
"""An earlier schema that can be read and written as well, where it may not be changed."""
VERSION_TABLE = "trtgray_schema"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)
Id = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts by itself in SQLite

runs = Table(
    "trtgray_runs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uid", String(64), nullable=False, unique=True),
    Column("time_utc", DateTime, nullable=False, index=True),
    Column("version", Text, nullable=False),
    Column("python", Text, nullable=False),
    Column("commit", Text, nullable=False),
    Column("branch", Text, nullable=False),
    Column("dirty", Boolean),
    Column("job", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("log_left_out", Integer, nullable=False),
)
series = Table(
    "trtgray_series",
    metadata,
    Column("id", Id, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("test", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("identity", JSON, nullable=False),
    Column("shapes", JSON, nullable=False),
    Column("method", JSON, nullable=False),
)
checks = Table(
    "trtgray_checks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", Id, ForeignKey("trtgray_runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("series_id", Id, ForeignKey("trtgray_series.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("total_us", Float),
    Column("change", Float),
    Column("low", Float),
    Column("high", Float),
    Column("relative_l2", Float),
    Column("clock_mhz", Float),
    Column("disturbed", Text, nullable=False),
    Column("context", JSON, nullable=False),
    Column("numbers", JSON, nullable=False),
    Column("notes", JSON, nullable=False),
    Index("ix_trtgray_checks_series", "series_id", "run_id"),
)
layers = Table(
    "trtgray_layers",
    metadata,
    Column("id", Id, primary_key=True),
    # of the key, which may name a thousand fused nodes: too long for an index of PostgreSQL
    Column("digest", String(64), nullable=False, unique=True),
    Column("key", Text, nullable=False),
)
layer_times = Table(
    "trtgray_layer_times",
    metadata,
    Column("check_id", Id, ForeignKey("trtgray_checks.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("layer_id", Id, ForeignKey("trtgray_layers.id"), primary_key=True, autoincrement=False),
    Column("series_id", Id, nullable=False),  # that of the check, for dashboards
    Column("us", Float, nullable=False),
    Column("outcome", Text, nullable=False),
    sqlite_with_rowid=False,
)
outputs = Table(
    "trtgray_outputs",
    metadata,
    Column("check_id", Id, ForeignKey("trtgray_checks.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("elements", BigInteger),
    Column("wrong", BigInteger),
    Column("non_finite", BigInteger),
    Column("max_abs", Float),
    Column("relative_l2", Float),
    Column("tolerance", Text, nullable=False),
)
findings = Table(
    "trtgray_findings",
    metadata,
    Column("check_id", Id, ForeignKey("trtgray_checks.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("severity", Text, nullable=False),
    Column("rule", Text, nullable=False, index=True),
    Column("place", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("remedy", Text, nullable=False),
)
log_records = Table(
    "trtgray_log_records",
    metadata,
    Column("run_id", Id, ForeignKey("trtgray_runs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("test", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("producer", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("time_s", Float, nullable=False),
    Column("message", Text, nullable=False),
)
