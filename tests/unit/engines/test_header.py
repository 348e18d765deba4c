from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.flavour import check_version, version_of
from pytest_trtgray.engines.header import HEADER_BYTES, describe_content, read_header
from pytest_trtgray.errors import EngineError
from pytest_trtgray.vendor import is_installed

Built = tuple[bytes, dict[str, Any]]


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(EngineError) as caught:
        read_header(path)
    assert str(path) in caught.value.message
    assert caught.value.remedy
    return caught.value.reason


def fake_header(tag: bytes = b"vtrt", size: int = HEADER_BYTES, version: bytes = b"\1\7\1\x74", mask: int = 0) -> bytes:
    head = bytearray(HEADER_BYTES)
    head[:4] = tag
    struct.pack_into("<Q", head, 16, size)
    head[24:28] = version
    struct.pack_into("<Q", head, 32, mask)
    return bytes(head)


class TestRealEngine:
    def test_family_version_and_size(self, engine_file: Path) -> None:
        header = read_header(engine_file)

        assert header.runtime == "tensorrt_rtx"
        assert header.version == version_of("tensorrt_rtx")
        assert header.plan_bytes == engine_file.stat().st_size

    def test_a_portable_engine_names_its_targets(self, engine_file: Path) -> None:
        targets = read_header(engine_file).targets

        assert "sm_89" in targets
        assert len(set(targets)) == len(targets)

    def test_the_installed_version_is_accepted(self, engine_file: Path) -> None:
        header = read_header(engine_file)
        check_version(engine_file, header)

        assert header.version.split(".")[:3] == version_of("tensorrt_rtx").split(".")[:3]

    def test_another_version_is_refused_with_both_numbers(self, engine_file: Path) -> None:
        content = bytearray(engine_file.read_bytes())
        content[24:28] = bytes([1, 4, 0, 76])
        engine_file.write_bytes(content)

        header = read_header(engine_file)

        assert header.version == "1.4.0.76"
        with pytest.raises(EngineError, match=r"built by TensorRT for RTX 1\.4\.0\.76") as caught:
            check_version(engine_file, header)
        assert version_of("tensorrt_rtx") in caught.value.reason
        assert "--trt-engine" in caught.value.remedy

    def test_another_build_number_of_the_same_version_is_accepted(self, engine_file: Path) -> None:
        content = bytearray(engine_file.read_bytes())
        content[27] ^= 0xFF
        engine_file.write_bytes(content)
        header = read_header(engine_file)

        assert header.version != version_of("tensorrt_rtx")
        check_version(engine_file, header)

    @given(st.data())
    def test_cut_off_anywhere_is_refused(self, built: Built, folder: Path, data: st.DataObject) -> None:
        content = built[0]
        length = data.draw(st.integers(0, len(content) - 1) | st.integers(0, HEADER_BYTES + 1))
        reason = refusal(folder / "cut.engine", content[:length])

        wanted = "is empty" if length == 0 else "not a TensorRT engine" if length < 4 else "cut off"
        assert wanted in reason

    def test_the_error_tells_how_much_is_there(self, engine_file: Path) -> None:
        content = engine_file.read_bytes()

        assert f"1,000 of {len(content):,} bytes" in refusal(engine_file, content[:1000])

    def test_a_damaged_tag_is_refused(self, engine_file: Path) -> None:
        content = engine_file.read_bytes()

        assert "it starts with b'vtrx'" in refusal(engine_file, b"vtrx" + content[4:])

    def test_a_damaged_size_is_refused(self, engine_file: Path) -> None:
        content = bytearray(engine_file.read_bytes())
        content[16:24] = b"\xff" * 8

        assert "cut off" in refusal(engine_file, bytes(content))


class TestForeignFiles:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty"),
            (b"<!DOCTYPE html><html>Not found</html>", "web page"),
            (b"\n  <HTML>", "web page"),
            (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 44260\n", "git lfs pull"),
            (b"PK\x03\x04rest of a zip", "ZIP archive"),
            (b"\x1f\x8b\x08rest of a gzip file", "unpack it"),
            (b'{"Layers": []}', "JSON"),
            (b"abcdefgh", "b'abcd'"),
            (b"vt", "b'vt'"),
            (b"vtrt", "cut off"),
            (b"ftrt" + bytes(59), "cut off: 63 bytes"),
        ],
    )
    def test_says_what_it_seems_to_be(self, tmp_path: Path, content: bytes, words: str) -> None:
        assert words in refusal(tmp_path / "x.engine", content)

    def test_an_onnx_model_under_an_engine_name(self, mlp: Path, tmp_path: Path) -> None:
        assert "not a TensorRT engine" in refusal(tmp_path / "mlp.engine", mlp.read_bytes())

    @given(st.binary(max_size=200) | st.binary(min_size=60, max_size=200).map(lambda end: b"vtrt" + end))
    def test_any_bytes_are_read_or_refused(self, folder: Path, content: bytes) -> None:
        path = folder / "any.engine"
        path.write_bytes(content)
        if content[:4] in (b"ftrt", b"vtrt") and len(content) >= HEADER_BYTES:
            plan_bytes = int.from_bytes(content[16:24], "little")
            if plan_bytes <= len(content):
                assert read_header(path).plan_bytes == plan_bytes
                return
        with pytest.raises(EngineError, match=r"empty|cut off|not a TensorRT engine"):
            read_header(path)

    @given(st.binary())
    def test_every_content_has_a_description(self, content: bytes) -> None:
        assert describe_content(content)


class TestTensorRT8:
    """``ptrt``: the size counts what follows 24 bytes, and the version stands between tags."""

    TAGS = tuple(b"\x02\x80\x01\x00" + bytes([number]) for number in (8, 5, 3, 1))

    def plan(self, *, size: int = 100, rest: bytes | None = None, tags: bytes = b"".join(TAGS)) -> bytes:
        head = b"ptrt" + bytes(4) + struct.pack("<QQ", 1, size) + tags
        return head.ljust(24 + size, b"\0") if rest is None else head + rest

    def read(self, folder: Path, content: bytes) -> Any:
        path = folder / "old.plan"
        path.write_bytes(content)
        return read_header(path)

    def test_family_version_and_size(self, tmp_path: Path) -> None:
        content = self.plan()
        header = self.read(tmp_path, content)

        assert (header.runtime, header.version, header.targets) == ("tensorrt", "8.5.3.1", ())
        assert header.plan_bytes == len(content) == 124

    @pytest.mark.parametrize("missing", [1, 24, 59])
    def test_cut_off(self, tmp_path: Path, missing: int) -> None:
        content = self.plan()

        assert f"cut off: {len(content) - missing} of 124 bytes" in refusal(tmp_path / "x.plan", content[:-missing])

    def test_cut_off_in_its_header(self, tmp_path: Path) -> None:
        assert "not even its header" in refusal(tmp_path / "x.plan", self.plan()[:63])

    @pytest.mark.parametrize(
        "tags",
        [b"", b"".join(TAGS[:3]), b"".join(TAGS).replace(b"\x80", b"\x81"), b"".join(TAGS[:2]) + b"\0" + TAGS[2]],
        ids=["none", "three", "other", "torn"],
    )
    def test_another_layout_has_no_version(self, tmp_path: Path, tags: bytes) -> None:
        header = self.read(tmp_path, self.plan(tags=tags))

        assert (header.runtime, header.version, header.plan_bytes) == ("tensorrt", "", 124)

    def test_a_line_feed_is_a_number_too(self, tmp_path: Path) -> None:
        tags = b"".join(b"\x02\x80\x01\x00" + bytes([number]) for number in (8, 10, 13, 0))

        assert self.read(tmp_path, self.plan(tags=tags)).version == "8.10.13.0"

    def test_the_largest_size_is_no_overflow(self, tmp_path: Path) -> None:
        content = self.plan(size=2**64 - 1, rest=bytes(100))

        assert "18,446,744,073,709,551,639 bytes" in refusal(tmp_path / "x.plan", content)

    @pytest.mark.skipif(is_installed("tensorrt"), reason="needs a machine without tensorrt")
    def test_an_unknown_version_leaves_no_gap_in_the_message(self, tmp_path: Path) -> None:
        header = self.read(tmp_path, self.plan(tags=b""))
        with pytest.raises(EngineError, match="was built by TensorRT; cannot be imported") as caught:
            check_version(tmp_path / "old.plan", header)

        assert caught.value.remedy == "Install TensorRT."

    @given(st.binary(max_size=200) | st.binary(min_size=60, max_size=200).map(lambda end: b"ptrt" + end), st.data())
    def test_any_bytes_are_read_or_refused(self, folder: Path, content: bytes, data: st.DataObject) -> None:
        if content[:4] == b"ptrt" and len(content) >= 24 and data.draw(st.booleans()):
            content = content[:16] + struct.pack("<Q", data.draw(st.integers(0, 300))) + content[24:]
        path = folder / "any.plan"
        path.write_bytes(content)
        whole = content[:4] == b"ptrt" and len(content) >= HEADER_BYTES
        if whole and int.from_bytes(content[16:24], "little") + 24 <= len(content):
            header = read_header(path)
            assert header.plan_bytes == int.from_bytes(content[16:24], "little") + 24
            assert re.fullmatch(r"(\d+(\.\d+){3})?", header.version)
            return
        if content[:4] not in (b"ftrt", b"vtrt"):
            with pytest.raises(EngineError, match=r"empty|cut off|not a TensorRT engine"):
                read_header(path)


class TestFields:
    def test_full_tensorrt_has_no_targets(self, tmp_path: Path) -> None:
        path = tmp_path / "full.plan"
        path.write_bytes(fake_header(b"ftrt", version=bytes([10, 13, 2, 6]), mask=0b111))
        header = read_header(path)

        assert (header.runtime, header.version, header.targets) == ("tensorrt", "10.13.2.6", ())

    @pytest.mark.parametrize(
        ("mask", "targets"),
        [
            (0, ()),
            (0b1, ("sm_75",)),
            (0b1010, ("sm_80", "sm_89")),
            (0b110000, ("sm_120", "sm_121")),
            (0b1000000, ("later",)),
            (0b10000010, ("sm_80", "later")),
        ],
    )
    def test_targets_of_the_mask(self, tmp_path: Path, mask: int, targets: tuple[str, ...]) -> None:
        path = tmp_path / "rtx.engine"
        path.write_bytes(fake_header(mask=mask))

        assert read_header(path).targets == targets

    def test_bytes_after_the_plan_are_no_error(self, tmp_path: Path) -> None:
        path = tmp_path / "padded.engine"
        path.write_bytes(fake_header() + b"padding")

        assert read_header(path).plan_bytes == HEADER_BYTES
