#!/usr/bin/env bash
# Starts a server that samples for `rollout=server`: serve.sh MODEL FOLDER [options of `vllm serve`]
#   MODEL   a folder that transformers loads (or a hub id), of the policy that is trained
#   FOLDER  where the trainer writes weights; the server reads nothing else
# Environment: PYTHON (of the server's environment), HOST (127.0.0.1), PORT (8000), PAPO_ROLLOUT_KEY (a key, if there is one),
# CPU=1 for the test on a CPU.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,6s/^# //p' "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
model=$1 folder=$2 host=${HOST:-127.0.0.1}
shift 2
python=${PYTHON:-$here/../../.server/venv/bin/python}
[ -d "$folder" ] || { echo "no folder $folder: the trainer writes weights there, make it first" >&2; exit 2; }
case $host in
  127.* | localhost | ::1) ;;
  *) [ -n "${PAPO_ROLLOUT_KEY:-}" ] || {
    echo "HOST=$host can be reached from elsewhere: set PAPO_ROLLOUT_KEY to a secret, here and for the trainer" >&2
    exit 2
  } ;;
esac
PAPO_WEIGHTS_FOLDER=$(realpath "$folder")
# Pictures come in the request: no other host is asked for one. Development mode has the endpoints that take weights; the guard answers no other of its kind.
export PAPO_WEIGHTS_FOLDER VLLM_SERVER_DEV_MODE=1 VLLM_PLUGINS=papo VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
mode=()
if [ "${CPU:-}" = 1 ]; then
  export OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_KVCACHE_SPACE=1 HF_HUB_OFFLINE=1
  mode=(--dtype float32 --enforce-eager --no-enable-prefix-caching --max-num-seqs 64)
fi
exec "$python" -m vllm.entrypoints.cli.main serve "$model" --served-model-name policy --host "$host" --port "${PORT:-8000}" \
  --enable-scale-out --allowed-media-domains pictures.come.in.the.request.invalid --logprobs-mode processed_logprobs --generation-config vllm \
  --weight-transfer-config '{"backend": "papo_folder"}' --middleware papo_vllm.guard.TrainerOnly \
  "${mode[@]}" "$@"
