#!/usr/bin/env bash
# The whole of REALM on real text, in minutes on a laptop:
#   launch/demo.sh [WORKDIR] [--smoke]
# WORKDIR: where the run goes, by default runs/demo in the repository.
# --smoke: a tiny run that only shows that everything works.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/experiment.sh
run_experiment demo demo runs/demo "$@"
