#!/usr/bin/env bash
# On a GPU machine: run tests/gpu and the example suite, and leave what they say in a folder.
#
#   tests/gpu/collect.sh OUT [PYTEST OPTION ...]
#
# OUT gets JUnit files, the example suite's verdicts and findings as JSON, its output, and baselines.tar.gz with the
# baselines of this machine: unpack it in the project's root, review, commit. Each job adds one run: after three jobs
# (better on three days) the verdict knows how much jobs differ. PYTHON chooses the interpreter.
# TRTGRAY_NETWORKS=FOLDER (see benchmarks/networks.py) adds ResNet-50 and BERT-base.
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd); shift
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
status=0
$python -m pytest tests/gpu -p no:cacheprovider -q -rs --junitxml="$out/tests_gpu.xml" \
  --trt-baseline-dir="$out/network_baselines" --update-baselines "$@" >"$out/tests_gpu.txt" 2>&1 || status=1
tail -n 40 "$out/tests_gpu.txt"
$python -m pytest example_suite -p no:cacheprovider -q --update-baselines "$@" >"$out/recording.txt" 2>&1 || status=1
$python -m pytest example_suite -p no:cacheprovider -q -rs --trt-json="$out/example_suite.json" \
  --junitxml="$out/example_suite.xml" "$@" >"$out/example_suite.txt" 2>&1 || status=1
tail -n 40 "$out/example_suite.txt"
tar czf "$out/baselines.tar.gz" baselines
rm -rf "$out/network_baselines"
exit $status
