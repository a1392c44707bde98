#!/usr/bin/env bash
# What one GPU reaches (benchmarks/gpu.py), in under nine minutes:
#
#   bash benchmarks/gpu_all.sh [--peer_python=PEER/bin/python] [--smoke]
#
# PYTHON is the Python that has realm-jax, by default `python`. Each measure is a
# process of its own with less than three minutes; one that fails stops no other.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
status=0
for measure in search embed step; do
  timeout 175 "${PYTHON:-python}" -m benchmarks.gpu \
    --measure="$measure" "$@" || status=$?
  echo
done
exit "$status"
