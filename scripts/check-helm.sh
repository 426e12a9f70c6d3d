#!/usr/bin/env bash
# Lints the chart, renders it with the default and with every option on, and checks the result against the schemas of
# Kubernetes. Where helm cannot be had the check is skipped by name; under CI=true that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! scripts/install-helm.sh; then
    echo "SKIPPED: helm chart (helm or kubernetes-validate cannot be installed)"
    [ "${CI:-}" != true ]
    exit
fi
chart=helm/switchover-agent
tools=target/tools
$tools/helm lint --strict $chart
for values in values.yaml ci/gold.yaml ci/geo.yaml ci/everything.yaml; do
    rendered=target/tools/rendered.yaml
    $tools/helm template agent $chart --namespace health --kube-version 1.35.0 -f $chart/$values >$rendered
    $tools/venv/bin/kubernetes-validate -k 1.35 --strict $rendered
    echo "helm template with $values: valid"
done
