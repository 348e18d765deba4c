"""``trtgray import``, ``trtgray export`` and ``trtgray diff`` of run documents, with their exit codes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_trtgray.cli import main
from pytest_trtgray.files import dump_json
from tests import documents, trtexec_files
from tests.recordings import H200
from tests.unit.interchange.conftest import Write

Captured = pytest.CaptureFixture[str]


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def write(path: Path, document: Any) -> Path:
    path.write_bytes(dump_json(document))
    return path


def give(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


class TestImport:
    def test_then_report_export_and_diff(self, exports: Write, tmp_path: Path, capsys: Captured) -> None:
        target = tmp_path / "run.json"
        code, out, _ = run(capsys, "import", *exports(0), "-o", target, "--device", "NVIDIA H200")
        assert code == 0
        assert "bert  timing     " in out
        assert "125 layers, 40 inferences, 1 session" in out

        page = tmp_path / "page.html"
        assert run(capsys, "report", target, "-o", page)[0] == 0
        assert "bert" in page.read_text("utf-8")
        trace, table = tmp_path / "trace.json", tmp_path / "layers.csv"
        assert run(capsys, "export", target, "--trace", trace, "--csv", table)[:2] == (0, f"{trace}\n{table}\n")
        assert len(json.loads(trace.read_text())["traceEvents"]) > 125
        assert len(table.read_text().splitlines()) == 126
        assert run(capsys, "diff", target, target)[0] == 0

    def test_standard_input_and_output(
        self, exports: Write, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        profile, *_ = exports(0, listed=False)
        give(monkeypatch, profile.read_bytes())
        code, out, _ = run(capsys, "import", "-", "-o", "-")
        assert code == 0
        assert json.loads(out)["format"] == "trtgray-run"
        give(monkeypatch, out.encode())
        assert run(capsys, "export", "-", "--csv", tmp_path / "x.csv")[0] == 0
        give(monkeypatch, out.encode())
        assert run(capsys, "diff", write(tmp_path / "a.json", json.loads(out)), "-")[0] == 0

    def test_findings_are_shown(self, tmp_path: Path, capsys: Captured) -> None:
        path = tmp_path / "net.profile.json"
        path.write_text(trtexec_files.profile(["0", "1"], H200().layer_us["a"][0][:, :2]))
        code, out, _ = run(capsys, "import", path, "-o", tmp_path / "run.json")
        assert code == 0
        assert "the layers have numbers for names" in out
        assert "-> Build with --profilingVerbosity=detailed." in out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("gone.json",), "gone.json: No such file"),
            (("profile", "--clock-mhz=-3"), "--clock-mhz: -3 is no clock"),
            (("profile", "--context=commit"), "--context: 'commit' is no KEY=VALUE"),
            (("profile", "-o", "folder"), "folder: cannot be written"),
        ],
    )
    def test_refusals(
        self, arguments: tuple[str, ...], message: str, exports: Write, capsys: Captured, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder").mkdir()
        profile, *_ = exports(0, listed=False)
        code, _, err = run(capsys, "import", *(str(profile) if each == "profile" else each for each in arguments))
        assert code == 2
        assert message in err
        assert "Traceback" not in err

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_damaged_bytes_are_imported_or_refused(self, data: st.DataObject, exports: Write, tmp_path: Path) -> None:
        """Never a traceback, and never a file that is written and cannot be read."""
        path = data.draw(st.sampled_from(exports(0)))
        content = bytearray(path.read_bytes()[: data.draw(st.integers(200, 6000))])
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        target = tmp_path / "damaged.json"
        target.write_bytes(bytes(content) + data.draw(st.sampled_from([b"", b"]", b"}", b"}\n]\n", b"}]}"])))
        made = tmp_path / "made.json"
        made.unlink(missing_ok=True)
        if main(["import", str(target), "-o", str(made)]) == 0:
            assert main(["diff", str(made), str(made)]) == 0
        else:
            assert not made.exists()


class TestDiff:
    def test_exit_codes(self, tmp_path: Path, capsys: Captured) -> None:
        old = write(tmp_path / "old.json", documents.document(6))
        same = write(tmp_path / "same.json", documents.document(6))
        worse = write(tmp_path / "worse.json", documents.document(6, slower=2))
        assert run(capsys, "diff", old, same)[0] == 0
        assert run(capsys, "diff", old, same, "--strict")[0] == 1  # made up by hand: no sessions
        code, out, _ = run(capsys, "diff", old, worse)
        assert code == 1
        assert "bert  timing     worse        pass -> slower" in out

    def test_json_and_markdown(self, tmp_path: Path, capsys: Captured) -> None:
        old = write(tmp_path / "old.json", documents.document(6))
        worse = write(tmp_path / "worse.json", documents.document(6, slower=2))
        code, out, _ = run(capsys, "diff", old, worse, "--json")
        assert code == 1
        assert json.loads(out)["worse"] is True
        assert "| ❌ worse | bert | timing |" in run(capsys, "diff", old, worse, "--markdown")[1]

    def test_nothing_in_common(self, tmp_path: Path, capsys: Captured) -> None:
        old = write(tmp_path / "old.json", {**documents.document(2), "checks": documents.document(2)["checks"][:1]})
        new = write(tmp_path / "new.json", {**documents.document(2), "checks": documents.document(2)["checks"][1:]})
        code, _, err = run(capsys, "diff", old, new)
        assert code == 2
        assert "nothing of the two runs could be compared" in err

    def test_a_run_and_something_else(self, exports: Write, tmp_path: Path, capsys: Captured) -> None:
        *_, listing = exports(0)
        document = write(tmp_path / "run.json", documents.document(2))
        code, _, err = run(capsys, "diff", document, listing)
        assert code == 2
        assert "is no run document, the other file is" in err
        assert run(capsys, "diff", listing, listing)[0] == 0  # layers, as before

    @pytest.mark.parametrize("member", ["engine", "kind", "findings", "details", "outcome"])
    def test_a_check_that_lacks_something(self, member: str, tmp_path: Path, capsys: Captured) -> None:
        document = documents.document(2)
        del document["checks"][1][member]
        damaged = write(tmp_path / "damaged.json", document)
        for arguments in (("diff", damaged, damaged), ("export", damaged, "--csv", tmp_path / "x.csv")):
            code, _, err = run(capsys, *arguments)
            assert code == 2
            assert "check 2 lacks what every check has" in err


class TestExport:
    def test_refusals(self, tmp_path: Path, capsys: Captured) -> None:
        document = write(tmp_path / "run.json", documents.document(2))
        empty = write(tmp_path / "empty.json", {**documents.document(2), "checks": []})
        for arguments, message in (
            ((document,), "nothing to write"),
            ((document, "--trace", "-", "--csv", "-"), "--trace and --csv both print"),
            ((empty, "--trace", tmp_path / "t.json"), "holds no times"),
            ((empty, "--csv", tmp_path / "t.csv"), "holds no layers"),
            ((document, "--csv", tmp_path), "cannot be written"),
            ((tmp_path / "gone.json", "--csv", "-"), "No such file"),
        ):
            code, _, err = run(capsys, "export", *arguments)
            assert (code, message in err) == (2, True), err
        assert not (tmp_path / "t.json").exists()

    def test_what_was_there_survives_a_failure(self, tmp_path: Path, capsys: Captured) -> None:
        before = tmp_path / "t.csv"
        before.write_text("before")
        document = write(tmp_path / "run.json", documents.document(2))
        code, _, err = run(capsys, "export", document, "--csv", before / "t.csv")  # a file where a folder should be
        assert (code, "cannot be written" in err) == (2, True)
        assert before.read_text() == "before"
        assert not list(tmp_path.glob("*.tmp"))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a document, of lists the first entries."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value[:2]))
    return [path, *(each for key, child in inner for each in places(child, (*path, key)))]


ODD: tuple[Any, ...] = (None, True, -1, 1e300, "x", "", [], {}, [[1]], [None], {"a": 1}, ["x"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_documents_that_somebody_has_edited(data: st.DataObject, exports: Write, tmp_path: Path) -> None:
    """Any member may be anything: the commands end with one of their exit codes, never with a traceback."""
    plain = tmp_path / "plain.json"
    if not plain.exists():
        assert main(["import", *map(str, exports(0)), "-o", str(plain)]) == 0
    whole = data.draw(st.sampled_from([documents.document(3, slower=1), json.loads(plain.read_text("utf-8"))]))
    path = data.draw(st.sampled_from([each for each in places(whole) if each]))
    edited = json.loads(json.dumps(whole))
    holder = edited
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(st.sampled_from(ODD))
    before, after = write(tmp_path / "before.json", whole), write(tmp_path / "after.json", edited)
    for arguments in (
        ["diff", before, after],
        ["diff", after, before, "--json"],
        ["export", after, "--trace", tmp_path / "t.json", "--csv", tmp_path / "t.csv"],
        ["report", before, after, "-o", tmp_path / "report.html"],
        ["metrics", after],
    ):
        assert main([str(argument) for argument in arguments]) in (0, 1, 2)
