"""The text that is written: two formats at once, by their own parsers and by Prometheus' tools."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import prometheus_client
from prometheus_client import parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict

from pytest_trtgray.metrics.exposition import render_metrics
from pytest_trtgray.metrics.families import FAMILIES
from pytest_trtgray.timing.latency import Latency
from pytest_trtgray.timing.samples import Samples
from tests import prometheus
from tests.documents import document


def full() -> dict[str, object]:
    """A document in which every kind of series occurs that needs no GPU."""
    run = document(layers=30, slower=3)
    latency = Latency.of([Samples([[1.0]], [900.0, 1100.0, 3000.0], ["layer"])])
    assert latency is not None
    run["checks"][0]["details"]["latency"] = latency.to_dict()
    run["checks"][0]["engine"] = 'a "quoted"\nname \\ of \x00 \udcff'
    return run


def samples(families: Iterable[Any]) -> dict[tuple[Any, ...], float]:
    return {(each.name, *sorted(each.labels.items())): each.value for family in families for each in family.samples}


def test_both_parsers_read_the_same_samples() -> None:
    text = render_metrics(full()).decode("utf-8")
    classic = samples(parser.text_string_to_metric_families(text))
    assert classic == samples(strict(text))  # type: ignore[no-untyped-call]
    assert len(classic) > 80
    assert any(name == "trtgray_run_latency_seconds_bucket" for name, *_ in classic)


def test_promtool_has_no_complaint() -> None:
    done = prometheus.promtool("check", "metrics", given=render_metrics(full()))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_promtool_would_complain() -> None:
    done = prometheus.promtool("check", "metrics", given=b"# TYPE trtgray_run_layer_ms gauge\ntrtgray_run_layer_ms 1\n")
    assert done.returncode != 0


def test_the_process_wide_registry_stays_as_it_is() -> None:
    before = prometheus_client.generate_latest()
    render_metrics(full())
    names = [metric.name for metric in prometheus_client.REGISTRY.collect()]
    assert not any(name.startswith("trtgray") for name in names)
    assert b"trtgray" not in before


def test_names_have_base_units_and_the_prefix() -> None:
    units = ("_seconds", "_bytes", "_ratio", "_hertz", "_celsius", "_watts")
    without = {"info", "checks", "left_out_checks", "check_failed", "check_outcome_info", "check_findings", "disturbed",
               "layers"}  # fmt: skip
    for family in FAMILIES:
        assert family.name.startswith("trtgray_run_")
        assert family.name.endswith(units) or family.name.removeprefix("trtgray_run_") in without
        assert '"' not in family.help  # the two formats escape it differently


def test_the_textfile_collector_takes_it(tmp_path: Path) -> None:
    folder = tmp_path / "textfile"
    folder.mkdir()
    (folder / "trtgray.prom").write_bytes(render_metrics(full()))
    (folder / ".trtgray.prom.x.tmp").write_bytes(b"half of a f")  # what an atomic replacement has beside it
    arguments = ("--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}")
    with prometheus.running("node_exporter", tmp_path, *arguments, "--web.listen-address={listen}", ready="/") as url:
        text = prometheus.get(f"{url}/metrics").decode()
    assert "node_textfile_scrape_error 0" in text
    assert re.search(r"trtgray_run_timestamp_seconds\{.*\} 1\.7952624e\+09", text)
    assert 'trtgray_run_latency_seconds_bucket{device="NVIDIA H200"' in text


def test_files_of_two_projects_stand_side_by_side(tmp_path: Path) -> None:
    """Of equal series, the collector would drop one."""
    folder = tmp_path / "textfile"
    folder.mkdir()
    for engine in ("bert", "vit"):
        (folder / f"{engine}.prom").write_bytes(render_metrics(document(engine=engine)))
    arguments = ("--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}")
    with prometheus.running("node_exporter", tmp_path, *arguments, "--web.listen-address={listen}", ready="/") as url:
        text = prometheus.get(f"{url}/metrics").decode()
    scraped = samples(parser.text_string_to_metric_families(text))
    for engine in ("bert", "vit"):
        alone = samples(parser.text_string_to_metric_families(render_metrics(document(engine=engine)).decode()))
        assert alone.items() <= scraped.items()


def test_the_textfile_collector_refuses_what_is_only_openmetrics(tmp_path: Path) -> None:
    """Why the classic format: this is the line that OpenMetrics would have."""
    folder = tmp_path / "textfile"
    folder.mkdir()
    (folder / "a.prom").write_bytes(b'# TYPE trtgray_run info\ntrtgray_run_info{version="1"} 1\n# EOF\n')
    arguments = ("--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}")
    with prometheus.running("node_exporter", tmp_path, *arguments, "--web.listen-address={listen}", ready="/") as url:
        assert "node_textfile_scrape_error 1" in prometheus.get(f"{url}/metrics").decode()
