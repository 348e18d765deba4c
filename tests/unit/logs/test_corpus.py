"""Real logs of many producers, with what a reader has to find in them."""

from __future__ import annotations

import gzip
import re
from collections import Counter

import pytest

from pytest_trtgray.logs.log import read
from tests.log_corpus import Pair, boundaries, missing, pairs
from tests.recordings import DATA

PAIRS = list(pairs(DATA / "logs"))


def named(pair: Pair) -> str:
    return pair.log.name.split(".")[0]


@pytest.mark.parametrize("pair", PAIRS, ids=named)
def test_every_fact_is_found(pair: Pair) -> None:
    assert missing(pair) == []


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair.messages is not None], ids=named)
def test_messages_begin_and_end_where_the_logger_was_given_them(pair: Pair) -> None:
    right, count = boundaries(pair)

    assert (right, count > 0) == (count, True)


def test_the_selection_has_all_producers_and_phases() -> None:
    producers = Counter(read(pair.log).producer for pair in PAIRS)
    origins = Counter(pair.about["origin"] for pair in PAIRS)

    assert set(producers) >= {
        "tensorrt",
        "trtexec",
        "polygraphy",
        "onnxruntime",
        "triton",
        "deepstream",
        "torch_tensorrt",
        "tensorrt_llm",
        "jetson",
    }
    assert origins == {"public-thread": 47, "generated": 25}
    assert {pair.about["phase"] for pair in PAIRS} >= {
        "parse",
        "build",
        "calibration",
        "deserialize",
        "runtime",
        "profile",
    }


@pytest.mark.parametrize("pair", PAIRS, ids=named)
def test_no_character_is_lost(pair: Pair) -> None:
    log = read(pair.log)

    stored = pair.log.read_bytes()
    printed = gzip.decompress(stored) if pair.log.suffix == ".gz" else stored
    kept = "".join(record.prefix + record.message for record in log.records)
    assert visible(kept) == visible(printed.decode("utf-8", "surrogateescape"))


def visible(text: str) -> Counter[str]:
    """The characters of a text, in any order: threads that write into each other change it."""
    return Counter("".join(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).split()))


@pytest.mark.parametrize("pair", PAIRS, ids=named)
def test_lines_are_those_of_the_file(pair: Pair) -> None:
    log = read(pair.log)

    numbers = [record.line for record in log.records if record.line is not None]
    stored = pair.log.read_bytes()
    count = (gzip.decompress(stored) if pair.log.suffix == ".gz" else stored).count(b"\n") + 1
    assert len(numbers) == log.messages == len(log.records)
    assert min(numbers) >= 1
    assert max(numbers) <= count
