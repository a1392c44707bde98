#!/usr/bin/env bash
# The knowledge swap, in minutes on a laptop: trained beside a World Factbook of
# about 2015, asked with today's, and no training between them:
#   launch/swap_demo.sh [WORKDIR] [--smoke]
# WORKDIR: where the run goes, by default runs/swap in the repository.
# --smoke: a tiny run that only shows that everything works.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/experiment.sh
run_experiment swap_demo swap runs/swap "$@"
