#!/usr/bin/env bash
# A command on all hosts of a TPU VM pod slice:
#   launch/tpu_vm.sh NAME ZONE setup          # copies this commit, installs it
#   launch/tpu_vm.sh NAME ZONE experiments.pretrain \
#     --config=configs/pretrain.py:base --workdir=/mnt/runs/a
# NAME and ZONE: of a slice that you made (gcloud compute tpus tpu-vm create).
# /mnt/runs: a file system that all hosts mount, such as Filestore. A slice for
# experiments.refresh_worker has one host: set REALM_PROCESSES= before it.
set -euo pipefail

if [[ $# -lt 3 ]]; then
  echo "usage: launch/tpu_vm.sh NAME ZONE setup | MODULE [FLAGS]" >&2
  exit 2
fi
name="$1" zone="$2"
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
    --command="$1"
}

if [[ "$1" == setup ]]; then
  archive="$(mktemp -d)/realm-jax.tar.gz"
  trap 'rm -r "$(dirname "$archive")"' EXIT
  git archive --format=tar.gz --output="$archive" HEAD
  gcloud compute tpus tpu-vm scp "$archive" "$name:realm-jax.tar.gz" \
    --zone="$zone" --worker=all
  on_all_hosts "mkdir -p realm-jax && tar -xzf realm-jax.tar.gz -C realm-jax \
    && cd realm-jax && source launch/venv.sh && use_venv '' \
    && .venv/bin/python -m pip install --quiet 'jax[tpu]'"
else
  printf -v words " %q" "$@"
  on_all_hosts "cd realm-jax && REALM_PROCESSES=${REALM_PROCESSES-auto} \
    .venv/bin/python -m$words"
fi
