"""What the runtimes say: in the tests, below their failures, beside the JSON report; without what is private."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import models
from tests.integration.conftest import Project, needs_rtx, text

RTX = "--trt-runtime=tensorrt_rtx"
BUILDS = """
def test_net(trt_build, trt_log):
    assert trt_log(trt_build("mlp.onnx")).errors == ()
"""
REFUSED = """
def test_custom(trt_build):
    trt_build("custom.onnx")
"""


def lines(project: Project, name: str = "report") -> list[dict[str, Any]]:
    """The JSON Lines beside a report."""
    return [json.loads(line) for line in (project.path / f"{name}.log.jsonl").read_text().splitlines()]


def unused_weight(path: Path) -> Path:
    """A model with a weight that nothing reads: a warning of ONNX Runtime."""
    graph = models.Graph()
    x = graph.input("x", [1, 4])
    graph.weight("unused", 4, 4)
    graph.add("Relu", [x], "/Relu", "y")
    graph.output("y", [1, 4])
    return graph.save(path)


class TestBesideTheReport:
    @needs_rtx
    def test_every_message_has_its_test(self, project: Project) -> None:
        project.mlp()
        unused_weight(project.path / "unused.onnx")
        project.pytester.makepyfile(
            BUILDS
            + "\ndef test_other(trt_build, trt_log):\n"
            + "    trt_log(trt_build('unused.onnx', runtime='onnxruntime'))\n"
        )
        project.run(RTX, "--trt-json=report.json").assert_outcomes(passed=2)
        found = lines(project)
        of_net = [line for line in found if line["test"].endswith("::test_net")]
        of_other = [line for line in found if line["test"].endswith("::test_other")]

        assert len(found) == len(of_net) + len(of_other)
        assert {"tensorrt_rtx", "polygraphy"} <= {line["producer"] for line in of_net}
        assert {line["phase"] for line in of_net} >= {"parse", "build"}
        assert "verbose" not in {line["severity"] for line in found}
        (warning,) = [line for line in of_other if line["severity"] == "warning"]
        assert (warning["producer"], warning["phase"]) == ("onnxruntime", "load")
        assert "unused" in warning["message"]
        report = json.loads((project.path / "report.json").read_text())
        assert report["log"] == {"file": "report.log.jsonl", "records": len(found), "dropped": 0}

    @needs_rtx
    def test_the_log_of_an_engine_from_the_cache(self, project: Project) -> None:
        project.mlp()
        project.pytester.makepyfile(BUILDS)
        for name in ("first", "second"):
            project.run(RTX, f"--trt-json={name}.json").assert_outcomes(passed=1)
        first, second = ([line["message"] for line in lines(project, name)] for name in ("first", "second"))

        assert second == first

    @needs_rtx
    def test_as_much_of_it_as_is_wanted(self, project: Project) -> None:
        project.mlp()
        project.pytester.makepyfile(BUILDS)
        counts: dict[str, list[int]] = {}
        for level in ("warning", "info", "verbose", "verbose"):
            project.run(RTX, f"--trt-json={level}.json", f"--trt-log-level={level}").assert_outcomes(passed=1)
            counts.setdefault(level, []).append(len(lines(project, level)))

        assert counts["warning"] == [0]
        assert 10 < counts["info"][0] < 100 < counts["verbose"][0]
        assert {line["severity"] for line in lines(project, "verbose")} >= {"info", "verbose"}
        # the second time the engine and its log come from the cache
        assert abs(counts["verbose"][0] - counts["verbose"][1]) < 10

    @needs_rtx
    def test_a_build_that_fails_leaves_its_log(self, project: Project) -> None:
        models.unary(project.path / "custom.onnx", "Mystery", domain="acme")
        project.pytester.makepyfile(REFUSED)
        project.run(RTX, "--trt-json=report.json").assert_outcomes(failed=1)
        (listed,) = [line for line in lines(project) if "desc" in line.get("details", {})]

        assert listed["details"]["node_operator"] == "Mystery"
        assert listed["event"] == "parser_error"
        assert listed["schema"] == "trtgray.log/1"

    @needs_rtx
    def test_with_parallel_workers(self, project: Project) -> None:
        project.mlp()
        models.unary(project.path / "custom.onnx", "Mystery", domain="acme")
        project.pytester.makepyfile(BUILDS + REFUSED)
        result = project.run(RTX, "-n2", "--trt-json=report.json", "--junitxml=junit.xml")
        result.assert_outcomes(passed=1, failed=1)

        assert {line["test"].rpartition("::")[2] for line in lines(project)} == {"test_net", "test_custom"}
        # a log is no property of a test
        assert "Opset version" not in (project.path / "junit.xml").read_text()

    def test_nothing_was_said(self, project: Project) -> None:
        (project.path / "report.log.jsonl").write_text("of an earlier run")
        project.pytester.makepyfile("def test_it(trt_device):\n    pass")
        project.run("--trt-json=report.json").assert_outcomes(passed=1)

        assert lines(project) == []

    def test_a_folder_in_its_place(self, project: Project) -> None:
        (project.path / "report.log.jsonl").mkdir()
        project.pytester.makepyfile("def test_it(trt_device):\n    pass")
        result = project.run("--trt-json=report.json")

        result.assert_outcomes(passed=1)
        assert "report.log.jsonl: the log cannot be written" in text(result)
        assert "log" not in json.loads((project.path / "report.json").read_text())


class TestBelowAFailure:
    @needs_rtx
    def test_problems_are_shown(self, project: Project) -> None:
        models.unary(project.path / "custom.onnx", "Mystery", domain="acme")
        project.pytester.makepyfile(REFUSED)
        result = project.run(RTX)

        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            ["*- trtgray log -*", "error    tensorrt_rtx parse: In node 0 with name: /Mystery and operator: Mystery*"]
        )
        assert "PARSE_PLUGIN_NOT_FOUND" in text(result)

    @needs_rtx
    def test_a_passing_test_shows_nothing(self, project: Project) -> None:
        project.mlp()
        project.pytester.makepyfile(BUILDS)
        result = project.run(RTX, "-rA")

        result.assert_outcomes(passed=1)
        assert "trtgray log" not in text(result)

    @needs_rtx
    def test_of_a_failing_set_up(self, project: Project) -> None:
        models.unary(project.path / "custom.onnx", "Mystery", domain="acme")
        result = project.run("--trt-engine=custom.onnx", RTX, "-k", "log", "--trt-json=report.json")

        result.assert_outcomes(errors=1)
        assert "Mystery" in text(result)
        assert [line for line in lines(project) if line["severity"] == "error"]


class TestAsking:
    @needs_rtx
    def test_for_the_chatter_of_an_engine(self, project: Project) -> None:
        project.mlp()
        project.pytester.makepyfile(
            """
            import pytest
            from pytest_trtgray.errors import TrtGrayError

            def test_later(trt_engine, trt_log):
                assert {r.severity for r in trt_log(trt_engine).records} == {"info"}
                verbose = trt_log(trt_engine, level="verbose")
                assert len(verbose.records) > 100
                assert any(r.message.startswith("Progress: Building engine") for r in verbose.records)
                assert any(r.message.startswith("Layers:") for r in verbose.records)
                assert trt_log(trt_engine, level="verbose").records == verbose.records
                assert trt_log(trt_engine, level="warning").records == []

            def test_at_once(trt_build, trt_log):
                assert len(trt_log(trt_build("mlp.onnx", log="verbose")).records) > 100
                assert len(trt_log(trt_build("mlp.onnx", log="warning")).records) == 0

            def test_onnxruntime(trt_build, trt_log):
                engine = trt_build("mlp.onnx", runtime="onnxruntime")
                assert len(trt_log(engine, level="verbose").records) > len(trt_log(engine).records) > 10

            def test_unknown(trt_build):
                with pytest.raises(TrtGrayError, match="has no level 'loud'"):
                    trt_build("mlp.onnx", log="loud")
            """
        )
        project.run("--trt-engine=mlp.onnx", RTX).assert_outcomes(passed=4)

    @needs_rtx
    def test_what_is_in_it(self, project: Project) -> None:
        project.mlp()
        models.encoder(project.path / "encoder.onnx", layers=1)
        project.pytester.makepyfile(
            """
            import pytest

            SHAPES = dict(
                min_shapes="ids:1x2,mask:1x1x1x2",
                opt_shapes="ids:2x8,mask:2x1x1x8",
                max_shapes="ids:4x16,mask:4x1x1x16",
            )

            def test_clean(trt_build, trt_log):
                log = trt_log(trt_build("mlp.onnx"))
                log.assert_clean()
                assert (log.product, log.phase, log.diagnosis.code) == ("TensorRT-RTX", "build", "OK")
                assert log.counts["onnx_header"] == 1
                assert log.findings == ()

            def test_a_warning(trt_build, trt_log):
                log = trt_log(trt_build("encoder.onnx", **SHAPES))
                log.check()
                log.assert_clean(allow=["OK_WARN_INT64_IO"])
                log.assert_clean(allow=["has Int64 binding"])
                assert [finding.rule for finding in log.findings] == ["log.OK_WARN_INT64_IO"]
                with pytest.raises(AssertionError, match="the log is not clean: "):
                    log.assert_clean()
            """
        )
        project.run(RTX).assert_outcomes(passed=2)


class TestRedaction:
    def model(self, project: Project) -> None:
        home = project.path / "home" / "alice"
        home.mkdir(parents=True)
        models.unary(home / "custom.onnx", "Mystery", domain="acme")
        project.mlp("home/alice/mlp.onnx")
        project.pytester.makepyfile(
            "def test_net(trt_build, trt_log):\n"
            "    trt_log(trt_build('home/alice/mlp.onnx')).check()\n"
            "def test_findings(request, trt_log):\n"
            "    from pytest_trtgray.findings import Finding\n"
            "    from pytest_trtgray.state import trt_session\n"
            "    finding = Finding('warning', 'log', 'read /home/alice/x for PROJ-17', 'log.x')\n"
            "    trt_session(request.config).report(request.node, 'log', None, 'pass', 'of /home/alice', [finding])\n"
        )

    def written(self, project: Project) -> str:
        files = ["report.json", "report.log.jsonl", "junit.xml"]
        files += [str(path) for path in (project.path / ".trtgray_cache").glob("*.json")]
        return "".join((project.path / name).read_text() for name in files)

    @needs_rtx
    def test_of_everything_that_is_written_or_shown(self, project: Project) -> None:
        self.model(project)
        result = project.run(RTX, "--trt-json=report.json", "--junitxml=junit.xml")
        result.assert_outcomes(passed=2)
        written = self.written(project)

        assert "home/user/mlp.onnx" in written
        assert "warning: read /home/user/x for PROJ-17" in text(result)
        assert "of /home/user" in text(result)
        assert "alice" not in written

    @needs_rtx
    def test_switched_off(self, project: Project) -> None:
        self.model(project)
        result = project.run(RTX, "--trt-json=report.json", "--junitxml=junit.xml", "--trt-no-redaction")
        result.assert_outcomes(passed=2)

        assert "home/alice/mlp.onnx" in self.written(project)
        assert "read /home/alice/x" in text(result)

    @needs_rtx
    def test_patterns_of_the_project(self, project: Project) -> None:
        self.model(project)
        project.ini("trt_redact =\n    PROJ-\\d+\n    (mlp)\\.onnx")
        result = project.run(RTX, "--trt-json=report.json", "--junitxml=junit.xml")
        result.assert_outcomes(passed=2)
        written = self.written(project)

        assert "for REDACTED" in text(result)
        assert "home/user/REDACTED.onnx" in written
        assert "PROJ-17" not in written

    @pytest.mark.parametrize(
        ("pattern", "reason"),
        [("(PROJ", "is no regular expression: missing )"), ("x*", "matches the empty text, that is everywhere")],
    )
    def test_a_pattern_that_is_none(self, project: Project, pattern: str, reason: str) -> None:
        project.ini(f"trt_redact =\n    {pattern}")
        project.pytester.makepyfile("def test_it():\n    pass")
        result = project.run()

        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert f"trt_redact = {pattern}: {reason}" in text(result)

    @needs_rtx
    def test_below_a_failure(self, project: Project) -> None:
        self.model(project)
        project.pytester.makepyfile(
            test_other="import pytest\n"
            "def test_custom(trt_build):\n"
            "    from pytest_trtgray.logs.sink import SINK\n"
            "    SINK.say('error', 'x', 'cannot read /home/alice/x')\n"
            "    assert False\n"
        )
        result = project.run(RTX, "test_other.py")

        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["error    x: cannot read /home/user/x"])


def test_ctrl_c_during_a_build_ends_the_run(project: Project) -> None:
    pytest.importorskip("tensorrt_rtx")
    models.encoder(project.path / "encoder.onnx", layers=6)
    project.pytester.makepyfile(
        """
        import os, signal, threading
        from pytest_trtgray.logs.sink import SINK

        def press(records):
            while not any("progress" in record.details for record in records):
                pass
            os.kill(os.getpid(), signal.SIGINT)

        def test_long(trt_build):
            with SINK.collect(None) as records:
                threading.Thread(target=press, args=(records,)).start()
                trt_build("encoder.onnx", min_shapes="ids:1x2,mask:1x1x1x2", opt_shapes="ids:2x8,mask:2x1x1x8",
                          max_shapes="ids:4x16,mask:4x1x1x16")

        def test_next():
            print("went on")
        """
    )
    result = project.run_apart(RTX, "-s", "-p", "no:randomly")

    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in text(result)
    assert "went on" not in text(result)
    assert not list((project.path / ".trtgray_cache").glob("*.engine"))
