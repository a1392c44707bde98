#!/usr/bin/env bash
# The knowledge swap, in minutes on a laptop: trained beside a World Factbook of
# about 2015, asked with today's, and no training between them:
#   launch/swap_demo.sh [WORKDIR] [--smoke]
# WORKDIR: where the run goes, by default runs/swap in the repository.
# --smoke: a tiny run that only shows that everything works.
set -euo pipefail

workdir="" arg=demo
for word in "$@"; do
  case "$word" in
    --smoke) arg=smoke ;;
    -* | "") echo "usage: launch/swap_demo.sh [WORKDIR] [--smoke]" >&2; exit 2 ;;
    /*) workdir="$word" ;;
    *) workdir="$PWD/$word" ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh
use_venv ""
exec .venv/bin/python -m experiments.swap_demo \
  --config="configs/swap.py:$arg" --workdir="${workdir:-runs/swap}"
