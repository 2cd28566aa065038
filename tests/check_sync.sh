#!/usr/bin/env bash
# Fails if diffhpe/ is not exactly what the notebooks export, or if a notebook is not clean. Works on a dirty tree; changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/repo"; cp -r settings.ini nbs "$tmp/repo/"
mkdir "$tmp/repo/diffhpe"; cp diffhpe/__init__.py "$tmp/repo/diffhpe/"
(cd "$tmp/repo" && nbdev_export && nbdev_clean)
# data, weights and the marker of typed code are not exported
diff -ru -x __pycache__ -x data -x weights -x py.typed "$tmp/repo/diffhpe" diffhpe || { echo "diffhpe/ is not in sync with nbs/: run make export" >&2; exit 1; }
diff -rq -x .ipynb_checkpoints "$tmp/repo/nbs" nbs || { echo "notebooks are not clean: run make clean-nbs" >&2; exit 1; }
