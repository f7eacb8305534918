#!/usr/bin/env bash
# Makes one environment per peer below $BENCH_SCRATCH (skips what is there; to change a
# version, change it here and delete that environment).
set -euo pipefail
: "${BENCH_SCRATCH:?set BENCH_SCRATCH to a scratch directory}"
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$BENCH_SCRATCH" && cd "$BENCH_SCRATCH"
venv() { # NAME PACKAGE...
  local name=$1; shift
  [ -f "venv-$name/.ok" ] && return
  python3 -m venv "venv-$name"
  "venv-$name/bin/pip" install -q "$@"
  touch "venv-$name/.ok"
}
# saq 0.26.4 imports typing_extensions without asking for it
venv emp-trio "$(dirname "$(dirname "$here")")"
venv saq 'saq[redis,hiredis]==0.26.4' typing_extensions
venv arq arq==0.28.0
venv streaq streaq==7.2.0 trio
venv taskiq taskiq==0.13.0 taskiq-redis==1.2.4
venv dramatiq 'dramatiq[redis]==2.2.1'
venv celery 'celery[redis]==5.7.0'
venv rq rq==3.0.0
if [ ! -f node/.ok ]; then
  mkdir -p node && cd node
  echo '{"name":"bench","private":true}' > package.json
  npm install --silent bullmq@6.7.0 ioredis@6.0.0 && touch .ok
fi
