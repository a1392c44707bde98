#!/usr/bin/env bash
# Lint, format and all tests: launch/test.sh [arguments for pytest]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh
use_venv "[test]"
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
# worksteal: neighbours stay in one process and share fixtures and programs.
exec .venv/bin/python -m pytest -n 2 --dist=worksteal "$@"
