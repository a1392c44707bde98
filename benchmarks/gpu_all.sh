#!/usr/bin/env bash
# What one GPU reaches (benchmarks/gpu.py), in under nine minutes:
#
#   bash benchmarks/gpu_all.sh [--peer_python=PEER/bin/python] [--smoke]
#
# PYTHON is the Python that has realm-jax, by default `python`. Each measure is a
# process of its own with about two minutes; one that fails stops no other.
#
# XLA_FLAGS, if not given, leaves products to cuBLAS: as fast, and compiled in
# two thirds of the time (docs/measurements.md).
set -u
export XLA_FLAGS="${XLA_FLAGS:---xla_gpu_enable_triton_gemm=false}"
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
status=0
for measure in search embed step refresh; do
  timeout 134 "${PYTHON:-python}" -m benchmarks.gpu \
    --measure="$measure" "$@" || status=$?
  echo
done
exit "$status"
