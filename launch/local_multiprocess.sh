#!/usr/bin/env bash
# Pre-trains the demo's model as one job of several processes on this machine:
#   bash launch/local_multiprocess.sh [-n PROCESSES] [--devices DEVICES]
# Two processes of one device each if nothing is said. The run goes to
# runs/multiprocess; called again, it goes on.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh
use_venv ""
config=--config=configs/pretrain.py:demo
run=runs/multiprocess
.venv/bin/python -m experiments.prepare_data "$config" --workdir="$run"
exec .venv/bin/python launch/local_multiprocess.py --devices 1 "$@" -- \
  .venv/bin/python -m experiments.pretrain "$config" --workdir="$run/pretrain"
