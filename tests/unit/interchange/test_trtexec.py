"""Files in trtexec's own spelling: whole, as other releases write them, and broken in every way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.interchange.trtexec import read_outputs, read_profile, read_times
from tests import trtexec_files
from tests.recordings import H200

HERE = Path("export.json")
NAMES = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)


def columns(count: int, rows: int = 50) -> np.ndarray:
    return np.random.default_rng(0).gamma(20.0, 0.5, (rows, count))


class TestProfile:
    def test_a_recording(self) -> None:
        h200 = H200()
        samples = h200.layer_us["a"][0]
        read = read_profile(HERE, trtexec_files.profile(h200.layer_names, samples))

        assert [layer.name for layer in read.layers] == h200.layer_names
        assert read.count == len(samples)
        means = np.array([layer.mean_ms for layer in read.layers], float) * 1e3
        np.testing.assert_allclose(means, samples.mean(axis=0), rtol=1e-5)
        medians = np.array([layer.median_ms for layer in read.layers], float) * 1e3
        np.testing.assert_allclose(medians, np.median(samples, axis=0), rtol=1e-5)
        assert read.findings == ()

    def test_without_medians(self) -> None:
        read = read_profile(HERE, trtexec_files.profile(["a", "b"], columns(2), median=False))
        assert [layer.median_ms for layer in read.layers] == [None, None]

    def test_the_median_of_one_inference_is_its_time(self) -> None:
        read = read_profile(HERE, trtexec_files.profile(["a"], columns(1, rows=1), median=False))
        assert read.layers[0].median_ms == read.layers[0].mean_ms

    @given(st.lists(NAMES, min_size=1, max_size=6))
    def test_names_are_what_stands_between_the_quotes(self, names: list[str]) -> None:
        samples = columns(len(names))
        read = read_profile(HERE, trtexec_files.profile(names, samples))
        assert [layer.name for layer in read.layers] == names
        means = [layer.mean_ms for layer in read.layers]
        np.testing.assert_allclose(np.array(means, float) * 1e3, samples.mean(axis=0), rtol=1e-5)

    @pytest.mark.parametrize(
        "name", ['say "hi"', 'x", "timeMs" : 3', "back\\slash\\", "\n\x1e\x1f\x00", "a } ] , {", ""]
    )
    def test_names_that_break_json(self, name: str) -> None:
        read = read_profile(HERE, trtexec_files.profile([name, name], columns(2)))
        assert [layer.name for layer in read.layers] == [name, name]

    @given(st.lists(NAMES, min_size=1, max_size=6), st.sampled_from([None, 2]))
    def test_files_that_another_program_has_written_again(self, names: list[str], indent: int | None) -> None:
        rows = [{"count": 3}, *({"name": name, "timeMs": 3.0, "averageMs": 1.0} for name in names)]
        read = read_profile(HERE, json.dumps(rows, indent=indent))
        assert [layer.name for layer in read.layers] == names
        assert read.count == 3

    def test_an_average_that_is_missing_follows_from_the_sum(self) -> None:
        (layer,) = read_profile(HERE, '[{"count": 4}, {"name": "a", "timeMs": 2.0}]').layers
        assert layer.mean_ms == 0.5
        (layer,) = read_profile(HERE, '[{"name": "a", "timeMs": 2.0, "averageMs": "1.5"}]').layers
        assert layer.mean_ms == 1.5  # a number as text

    @given(st.integers(0, 2000))
    def test_a_file_that_is_cut_off_is_refused(self, length: int) -> None:
        text = trtexec_files.profile([f"layer {number}" for number in range(12)], columns(12))
        end = min(length, len(text.rstrip()) - 1)
        with pytest.raises(InterchangeError):
            read_profile(HERE, text[:end])

    @given(st.data())
    def test_damage_costs_no_layer_without_a_word(self, data: st.DataObject) -> None:
        """It is refused, or said; never a traceback."""
        names = [f"layer {number}" for number in range(6)]
        text = trtexec_files.profile(names, columns(6))
        at = data.draw(st.integers(0, len(text) - 1))
        put = data.draw(st.sampled_from(["", '"', "\\", "{", "}", "[", "]", ",", "nan", "\n", "é"]))
        damaged = text[:at] + put + text[at + data.draw(st.integers(0, 30)) :]
        try:
            read = read_profile(HERE, damaged)
        except InterchangeError:
            return
        assert len(read.layers) == len(names) or read.findings

    def test_an_entry_that_cannot_be_read_does_not_swallow_the_next(self) -> None:
        text = trtexec_files.profile(["a", "b", "c"], columns(3))
        broken = re.sub(r'"b", "timeMs" : [\d.]+', '"b", "timeMs" : ?', text)
        with pytest.raises(InterchangeError, match="entry 2 of the layers"):
            read_profile(HERE, broken)

    def test_no_time_passed(self) -> None:
        """trtexec divides by the sum of all layers, and writes ``-nan``."""
        read = read_profile(HERE, trtexec_files.profile(["a"], np.zeros((3, 1))))
        assert read.layers[0].mean_ms == 0.0

    def test_a_time_that_is_no_number_is_unknown(self) -> None:
        text = trtexec_files.profile(["a", "b"], columns(2))
        text = re.sub(r'("a", "timeMs" : )[\d.]+(, "averageMs" : )[\d.]+', r"\1nan\2-nan(ind)", text)
        read = read_profile(HERE, text)
        assert read.layers[0].mean_ms is None
        assert read.layers[1].mean_ms is not None
        assert [finding.rule for finding in read.findings] == ["interchange.no-number"]

    def test_a_list_that_lost_a_layer(self) -> None:
        text = trtexec_files.profile(["a", "b", "c"], columns(3))
        cut = re.sub(r", \{ \"name\" : \"b\".*\n", "", text)
        assert [finding.rule for finding in read_profile(HERE, cut).findings] == ["interchange.not-whole"]

    def test_a_layer_that_did_not_always_run(self) -> None:
        text = trtexec_files.profile(["a", "b"], columns(2))
        total = re.search(r'"b", "timeMs" : ([\d.]+)', text)
        assert total is not None
        fewer = text.replace(total[0], f'"b", "timeMs" : {float(total[1]) / 2:.6g}')
        assert "interchange.uneven-counts" in {finding.rule for finding in read_profile(HERE, fewer).findings}

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('[\n  { "count" : 0 }\n]', "holds no layers"),
            ('[{"count": 3}]', "holds no layers"),
            ('["conv1", "conv2"]', "entry 1 is a string, wanted an object: 'conv1'"),
            ('{"count": 3}', "is a JSON object, wanted a list"),
            ('[{"name": "a", "averageMs": "fast"}]', "averageMs is 'fast', which is no number"),
            ('[{"name": "a", "averageMs": true}]', "averageMs is 'True', which is no number"),
            ('[{"name": "a", "averageMs": -1}]', "averageMs is -1"),
            ('[{"name": "a", "averageMs": 1e999}]', "averageMs is inf"),
            ('[{"name": "a", "percentage": 3}]', "has neither timeMs nor averageMs"),
            ('[{"name": "a", "averageMs": NaN}]', "holds no time of any layer"),
            ('[{"name": "a", "averageMs": 1}, 3]', "entry 2 is a number"),
            ("[" * 100_000, "is nested too deeply|is cut off"),
        ],
    )
    def test_refusals(self, text: str, reason: str) -> None:
        with pytest.raises(InterchangeError, match=reason):
            read_profile(HERE, text)


class TestTimes:
    @pytest.mark.parametrize("end_to_end", [False, True])
    def test_a_recording(self, end_to_end: bool) -> None:
        latency = H200().latency_us["a"][0].astype(float)
        read = read_times(HERE, trtexec_files.times(latency, upload_us=12.0, end_to_end=end_to_end))
        np.testing.assert_allclose(read.compute_us, latency, rtol=1e-5)
        np.testing.assert_allclose(read.upload_us, 12.0)
        np.testing.assert_allclose(read.enqueue_us, 30.0, rtol=0.2)  # from times of six digits
        assert read.disturbed == ""
        assert read.findings == ()

    def test_inferences_that_overlap(self) -> None:
        read = read_times(HERE, trtexec_files.times(np.full(50, 900.0), gap_us=-400.0))
        assert read.disturbed == "100% of the inferences overlapped (--infStreams)"

    def test_rows_without_a_number_are_left_out_with_a_word(self) -> None:
        text = trtexec_files.times(np.full(10, 900.0)).replace('"computeMs" : 0.9', '"computeMs" : nan', 1)
        read = read_times(HERE, text)
        assert len(read.compute_us) == 9
        assert [finding.what for finding in read.findings] == [
            "1 of 10 inferences have no computeMs that is a number; left out"
        ]

    def test_the_kernels_time_follows_from_the_latency(self) -> None:
        read = read_times(HERE, '[{"latencyMs": 1.5, "h2dMs": 0.5, "d2hMs": 0.25}]')
        assert read.compute_us == [750.0]

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("[]", "holds no inferences"),
            ('[{"computeMs": null}]', "holds no inference with a time"),
            ('[{"latencyMs": 1.5}]', "holds no inference with a time"),
            ('[{"startComputeMs": 1, "endComputeMs": 2}]', "inference 1: has neither computeMs nor latencyMs"),
            ('[{"computeMs": "fast"}]', "inference 1: computeMs is 'fast'"),
            ('[{"computeMs": -0.5}]', "inference 1: computeMs is -0.5"),
            ('[{"computeMs": 1}, "x"]', "entry 2 is a string"),
            ('[{"computeMs": 1}', "is cut off: its last bracket is missing"),
            ('[{"computeMs": 1 ?}]', "is no valid JSON"),
        ],
    )
    def test_refusals(self, text: str, reason: str) -> None:
        with pytest.raises(InterchangeError, match=reason):
            read_times(HERE, text)


class TestOutputs:
    def test_arrays(self) -> None:
        arrays = {"y": np.array([[1.5, np.nan, -3.0]]), "z": np.arange(4.0).reshape(2, 2)}
        read = read_outputs(HERE, trtexec_files.outputs(arrays))
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("[]", "holds no outputs"),
            ('[{"name": "y", "dimensions": "2x2", "values": [1]}]', "output 'y'"),
            ('[{"name": "y", "dimensions": "1", "values": ["x"]}]', "output 'y'"),
            ('[{"name": "y"}]', "entry 1 has no name, dimensions and values"),
        ],
    )
    def test_refusals(self, text: str, reason: str) -> None:
        with pytest.raises(InterchangeError, match=reason):
            read_outputs(HERE, text)
