#!/usr/bin/env bash
# Opens reports in a headless Chromium and checks them (browser_test.mjs). Without arguments: of every committed run, of
# several beside each other, and of rows with hostile names.
#
#   scripts/report/browser_test.sh [--shots DIR] [RUN...]
#
# Needs Node.js with npm, and Debian's chromium, which it installs where it may. The program is taken from
# ATTN_BENCH, else from target/debug or target/release. Exit 3 where no Chromium can be had here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD

shots=''
if [[ ${1:-} == --shots ]]; then
    shots=$(mkdir -p "$2" && cd "$2" && pwd)
    shift 2
fi
cannot() {
    echo "report: not checked, $1"
    exit 3
}

bench=${ATTN_BENCH:-}
for built in "${CARGO_TARGET_DIR:-target}"/{debug,release}/attn-bench; do
    [[ -n $bench || ! -x $built ]] || bench=$built
done
[[ -n $bench ]] || { echo 'no attn-bench, build it first or name it with ATTN_BENCH' && exit 2; }
bench=$(realpath "$bench")

chromium=$(type -P chromium || type -P chromium-browser || type -P google-chrome || true)
if [[ -z $chromium && $EUID -eq 0 && $(type -P apt-get) ]]; then
    (timeout 60 apt-get update && timeout 300 apt-get install -y --no-install-recommends chromium) >/dev/null 2>&1 || true
    chromium=$(type -P chromium || true)
fi
[[ -n $chromium ]] || cannot 'there is no chromium and none could be installed'
[[ $(type -P npm) ]] || cannot 'there is no npm (Node.js)'

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/packages" "$scratch/pages" "${shots:=$scratch/shots}"
export REPORT_PACKAGES=$scratch/packages
echo '{"private": true}' >"$REPORT_PACKAGES/package.json"
PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 timeout 90 npm install --prefix "$REPORT_PACKAGES" --no-audit --no-fund --silent \
    playwright-core@1.65.1 axe-core@4.14.1 >"$scratch/npm" 2>&1 || cannot 'npm could not bring playwright-core and axe-core'

page() {
    "$bench" report "${@:2}" --out "$scratch/pages/$1.html" >/dev/null
}
# The same rows under a name that would be a script, were it not escaped.
hostile() {
    local copy=$scratch/hostile
    mkdir "$copy"
    sed 's|"label":"MLA"|"label":"</script><img src=x onerror=alert(1)>"|g; s|"reason":null|"reason":"<b onclick=alert(1)>"|g;
        s|"trust":"clean"|"trust":"shared"|g; s|"question":"[^"]*"|"question":"<svg/onload=alert(1)>"|g' \
        results/quick-2cores/log.jsonl >"$copy/log.jsonl"
    sed 's|^name: .*|name: "</script><script>alert(1)</script>"|' results/quick-2cores/sweep.yaml >"$copy/sweep.yaml"
    sed 's|Intel|<script>alert(1)</script>|' results/quick-2cores/environment.json >"$copy/environment.json"
    page hostile "$copy"
}

if [[ $# -gt 0 ]]; then
    for run in "$@"; do page "$(basename "$run")" "$run"; done
else
    for run in results/*/; do page "$(basename "$run")" "$run"; done
    page papers results/paper-*-2cores
    cp -r results/growth-2cores "$scratch/again"
    page twice results/growth-2cores "$scratch/again"
fi
hostile
node "$root/scripts/report/browser_test.mjs" "$scratch/pages" "$shots" "$chromium"
