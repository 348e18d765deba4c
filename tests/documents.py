"""Run documents made up for reports: as ``--trt-json`` writes them, of any size."""

from __future__ import annotations

from typing import Any


def layer_row(index: int, *, slower: bool = False) -> dict[str, Any]:
    before = 5.0 + index % 40
    node = f"/encoder/layer.{index // 12}/attention/part{index % 12}/MatMul"
    return {
        "key": node,
        "nodes": [node],
        "names": [f"__myl_MatMul_myl0_{index}"],
        "kind": "gemm",
        "precision": "float16",
        "module": f"encoder/layer.{index // 12}/attention",
        "outcome": "slower" if slower else "pass",
        "before_us": before,
        "us": before * (3 if slower else 1.001),
        "change": 2.0 if slower else 0.001,
        "low": 1.8 if slower else -0.01,
        "high": 2.2 if slower else 0.012,
        "p_value": 1e-9 if slower else 0.4,
        "at_risk": 0.0,
        "share": 0.01,
        "flops": 1_000_000 * (1 + index % 7),
        "bytes": 20_000 * (1 + index % 5),
        "roof_us": before / 2,
        "bound": "memory" if index % 3 else "compute",
    }


def log_details(messages: int = 40) -> dict[str, Any]:
    """A build of nine seconds."""
    severities = ["info"] * (messages - 2) + ["warning", "error"]
    return {
        "producer": "tensorrt_rtx",
        "messages": messages,
        "left_out": 0,
        "phases": [
            {"name": "parse", "parent": "", "start_s": 100.0, "seconds": 2.0},
            {"name": "build", "parent": "", "start_s": 102.0, "seconds": 7.0},
            {"name": "Timing tactics", "parent": "build", "start_s": 104.0, "seconds": 3.5},
        ],
        "records": [
            {
                "severity": severity,
                "phase": "build",
                "time_s": 100.0 + 9 * number / messages,
                "message": f"said {number}",
            }
            for number, severity in enumerate(severities)
        ],
    }


def output_row(name: str = "hidden", wrong: int = 0) -> dict[str, Any]:
    """One output of 4 x 250 elements, with an error that grows from row to row."""
    counts = [0] * 12 + [400, 550, 50] + [0] * 3
    return {
        "name": name,
        "elements": 1000,
        "wrong": wrong,
        "non_finite": 0,
        "max_abs": 1e-3,
        "rms_wanted": 1.0,
        "relative_l2": 5e-4,
        "tolerance": "0.016 * |wanted|",
        "worst": [],
        "rows": [{"index": row, "max_abs": 1e-3, "relative_l2": 1e-4 * (row + 1), "wrong": 0} for row in range(4)],
        "histogram": {"edges": [0.0, *(10.0**power for power in range(-12, 5))], "counts": counts},
        "map": {
            "rows": "axis 0",
            "columns": "axis 1",
            "row_starts": [0, 1, 2, 3],
            "column_starts": list(range(0, 250, 5)),
            "cells": [[1e-6 * (1 + row) * (1 + column) for column in range(50)] for row in range(4)],
        },
    }


def _finding(row: dict[str, Any]) -> dict[str, Any]:
    what = f"{row['key']}: {row['before_us']:.1f} -> {row['us']:.1f} us, +200.0%"
    rule = "timing.layer-slower"
    return {"severity": "error", "where": "x", "what": what, "rule": rule, "evidence": {}, "remedy": "Look."}


def document(layers: int = 24, *, slower: int | None = None, engine: str = "bert") -> dict[str, Any]:
    """A run of one engine whose layer number ``slower`` is slower than in its three recorded runs."""
    rows = [layer_row(index, slower=index == slower) for index in range(layers)]
    total = sum(row["us"] for row in rows)
    history = [
        {
            "us": sum(row["before_us"] for row in rows) * (1 + number / 1000),
            "error": 0.001,
            "sessions": 3,
            "clock_mhz": 1980.0,
            "context": {"time_utc": f"2026-11-1{number}T09:30:00Z", "commit": f"c0ffee{number}", "driver": "580.1"},
        }
        for number in range(3)
    ]
    bad = slower is not None
    findings = [_finding(rows[slower])] if slower is not None else []
    names = {"engine": engine, "runtime": "tensorrt_rtx 1.5.0.114", "device": "NVIDIA H200", "notes": []}
    structure = [
        {
            "name": row["names"][0],
            "kind": "gemm",
            "onnx": row["nodes"],
            "inputs": [[f"t{index - 1}", "float16", ""]],
            "outputs": [[f"t{index}", "float16", ""]],
            "tactic": "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64",
        }
        for index, row in enumerate(rows)
    ]
    return {
        "format": "trtgray-run",
        "schema": 1,
        "pytest_trtgray": "0.1.0",
        "python": "3.12.0",
        "time_utc": "2026-11-21T12:00:00Z",
        "checks": [
            {
                **names,
                "test": f"trtgray::layers[{engine}]",
                "kind": "timing",
                "outcome": "slower" if bad else "pass",
                "summary": f"{total / 1e3:.3g} ms against 3 jobs",
                "findings": findings,
                "details": {
                    "shapes": {"ids": [8, 128]},
                    "method": {"layers": "tensorrt-profiler"},
                    "sessions": 3,
                    "iterations": 201,
                    "disturbed": "",
                    "context": {"commit": "beef00", "driver": "580.1", "time_utc": "2026-11-21T12:00:00Z"},
                    "clock_mhz": 1980.0,
                    "engine": {"outcome": "slower" if bad else "pass", "us": total, "before_us": total, "change": 0.0,
                               "low": -0.01, "high": 0.01, "key": "engine", "p_value": 0.5, "at_risk": 0.0},
                    "layers": rows,
                    "modules": [],
                    "error": 0.001,
                    "peak": {"bytes_per_s": 4.8e12, "flops_per_s": {"vector": 6.7e13, "float16": 9.9e14},
                             "source": "NVIDIA H200 data sheet"},
                    "module_times": [
                        {"module": f"encoder/layer.{number}", "us": 10.0 + number, "share": 0.1, "layers": 12,
                         "weights_bytes": 1000, "activations_bytes": 2000, "flops": 10**9, "bound": "memory"}
                        for number in range(min(layers // 12, 100))
                    ],
                    "machine": 0.0,
                    "machine_explained": 0.0,
                    "reason": "",
                    "overheads": {},
                    "history": history,
                },
            },
            {
                **names,
                "test": f"trtgray::outputs[{engine}]",
                "kind": "outputs",
                "outcome": "pass",
                "summary": "1 output against the reference",
                "findings": [],
                "details": {
                    "outputs": [
                        output_row(), output_row("pooled")
                    ]
                },
            },
            {
                **names,
                "test": f"trtgray::structure[{engine}]",
                "kind": "structure",
                "outcome": "pass",
                "summary": f"{layers} layers",
                "findings": [{**_finding(rows[slower]), "where": rows[slower]["key"], "rule": "structure.node-added"}]
                if slower is not None
                else [],
                "details": {"layers": structure, "inputs": [], "outputs": [], "memory": {}},
            },
            {
                **names,
                "test": f"trtgray::log[{engine}]",
                "kind": "log",
                "outcome": "pass",
                "summary": "0 errors",
                "findings": [],
                "details": log_details(),
            },
        ],
    }  # fmt: skip
