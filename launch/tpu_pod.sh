#!/usr/bin/env bash
# Runs main.py on a Cloud TPU slice, on all of its hosts as one run.
#
#   launch/tpu_pod.sh --name=NAME --zone=ZONE [options] ACTION... [-- main.py's flags]
#
# Actions, done in the order given; "all" is create copy install start follow fetch:
#   create    creates the slice, unless one of this name is READY
#   copy      copies this checkout's commit to all hosts; refuses uncommitted files
#   install   installs it there, with jax for TPU
#   start     starts main.py on all hosts, unless it is already running
#   follow    shows the first host's log until the run ends (Ctrl-C stops only the display)
#   stop      tells the run to save and exit (SIGTERM); "start" continues it
#   fetch     copies the run's folder from the first host to --results
#   delete    deletes the slice, and everything that was not fetched
#
# Options:
#   --project=P        the Google Cloud project (default: gcloud's own)
#   --type=T           accelerator, default v5litepod-8 (one host); v5litepod-32: four
#   --version=V        runtime, default v2-alpha-tpuv5-lite
#   --spot             a cheaper slice that can be preempted at any time
#   --workdir=DIR      the run's folder on the hosts, default runs/tpu. With more than
#                      one host it must be a folder that all see: a mounted Filestore
#                      or bucket (gcsfuse), such as /mnt/runs/a
#   --results=DIR      where fetch copies to (default: the same path here)
#   --dry_run          prints all commands, runs none
#
# To see whether a run fits a slice, and what it sends, you need no slice:
#   python -m launch.sweep --config=... --estimate --topology=v5e:2x4
#
# Step by step:
#   1. gcloud auth login; gcloud config set project PROJECT; enable tpu.googleapis.com.
#   2. launch/tpu_pod.sh --name=fp --zone=us-west4-a create copy install
#   3. launch/tpu_pod.sh --name=fp --zone=us-west4-a start follow -- \
#        --config=experiments/cifar10_simplecnn_fp.py --config.dataset.data_dir=/mnt/tfds
#   4. launch/tpu_pod.sh --name=fp --zone=us-west4-a fetch delete
# After a preemption (--spot) repeat the steps; with a mounted workdir the run continues
# from its last checkpoint. Exit codes: 0 done, 2 bad usage, else that of the failed command.
set -euo pipefail

name="" zone="" project="" type="v5litepod-8" version="v2-alpha-tpuv5-lite"
workdir="runs/tpu" results="" spot="" dry_run=""
actions=() flags=()

fail() {
  echo "error: $*" >&2
  exit 2
}

for argument in "$@"; do
  shift
  case "$argument" in
    --) flags=("$@"); break ;;
    --name=*) name=${argument#*=} ;;
    --zone=*) zone=${argument#*=} ;;
    --project=*) project=${argument#*=} ;;
    --type=*) type=${argument#*=} ;;
    --version=*) version=${argument#*=} ;;
    --workdir=*) workdir=${argument#*=} ;;
    --results=*) results=${argument#*=} ;;
    --spot) spot=1 ;;
    --dry_run) dry_run=1 ;;
    all) actions+=(create copy install start follow fetch) ;;
    create | copy | install | start | follow | stop | fetch | delete)
      actions+=("$argument") ;;
    -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *) fail "unknown argument $argument; see $0 --help" ;;
  esac
done
[[ -n $name ]] || fail "--name is missing; see $0 --help"
[[ -n $zone ]] || fail "--zone is missing; see $0 --help"
[[ $workdir != *://* ]] ||
  fail "--workdir=$workdir is a remote address; mount it on the hosts and give the folder"
[[ ${#actions[@]} -gt 0 ]] || fail "no action; see $0 --help"
if [[ -z $dry_run ]]; then
  command -v gcloud >/dev/null || fail "gcloud is not installed; --dry_run needs none"
fi
results=${results:-$workdir}
where=(--zone="$zone")
[[ -z $project ]] || where+=(--project="$project")
tpu=(gcloud compute tpus tpu-vm)

# Prints the command; runs it unless this is a dry run.
run() {
  printf '+' >&2
  printf ' %q' "$@" >&2
  printf '\n' >&2
  [[ -n $dry_run ]] || "$@"
}

# Runs a shell command on one host ("0") or on all of them ("all").
on_hosts() {
  run "${tpu[@]}" ssh "$name" "${where[@]}" --worker="$1" --command="$2"
}

create() {
  local state=""
  if [[ -z $dry_run ]]; then
    state=$("${tpu[@]}" describe "$name" "${where[@]}" --format='value(state)' \
      2>/dev/null || true)
  fi
  case "$state" in
    READY) echo "$name is READY; using it" >&2; return ;;
    "") ;;
    PREEMPTED | TERMINATED)
      run "${tpu[@]}" delete "$name" "${where[@]}" --quiet ;;
    *) fail "$name is $state; wait, or delete it" ;;
  esac
  local how=()
  [[ -z $spot ]] || how+=(--spot)
  run "${tpu[@]}" create "$name" "${where[@]}" --accelerator-type="$type" \
    --version="$version" ${how[@]+"${how[@]}"}
}

copy() {
  local root archive
  root=$(cd "$(dirname "$0")/.." && pwd)
  archive=$(mktemp -t fisher_jax.XXXXXX.tar.gz)
  # The commit, and nothing that is not in it: the run's config.json names it.
  if [[ -z $dry_run && -n $(git -C "$root" status --porcelain) ]]; then
    fail "there are uncommitted files, which would not be copied; commit or stash them: \
$(git -C "$root" status --porcelain | head -3 | tr '\n' ' ')"
  fi
  run git -C "$root" archive --format=tar.gz --output="$archive" HEAD
  run "${tpu[@]}" scp "$archive" "$name:fisher_jax.tar.gz" "${where[@]}" --worker=all
  on_hosts all "mkdir -p fisher_jax && tar -xzf fisher_jax.tar.gz -C fisher_jax"
  rm -f "$archive"
}

install() {
  # The runtime's own python3 may be older than 3.11.
  on_hosts all "cd fisher_jax && python=\$(command -v python3.12 || \
command -v python3.11 || true) && if [ -z \"\$python\" ]; then sudo apt-get update -q && \
sudo apt-get install -yq python3.11-venv && python=python3.11; fi && \
\$python -m venv .venv && .venv/bin/pip install -q -e '.[train,tpu]' -c \
constraints/\$(basename \"\$python\" | sed 's/python3[.]/py3/').txt"
}

start() {
  [[ ${#flags[@]} -gt 0 ]] || fail "start needs main.py's flags after --"
  local command
  command=$(printf ' %q' .venv/bin/python main.py --workdir="$workdir" \
    "${flags[@]}")
  # Detached, so that the run outlives this connection; its exit code goes to a file.
  on_hosts all "cd fisher_jax && if pgrep -f '[m]ain.py --workdir' >/dev/null; then \
echo 'already running'; else rm -f exit_code; nohup setsid bash -c \
$(printf '%q' "$command; echo \$? > exit_code") > log.txt 2>&1 < /dev/null & fi"
}

follow() {
  on_hosts 0 "cd fisher_jax && touch log.txt && (tail -n +1 -F log.txt & \
while [ ! -e exit_code ]; do sleep 2; done; sleep 1; kill \$!; exit \$(cat exit_code))"
}

stop() {
  on_hosts all "pkill -TERM -f '[m]ain.py --workdir' || echo 'nothing is running'"
}

fetch() {
  local from="fisher_jax/$workdir"
  [[ $workdir != /* ]] || from=$workdir
  run mkdir -p "$results"
  run "${tpu[@]}" scp --recurse "$name:$from/*" "$results/" "${where[@]}" --worker=0
}

delete() {
  run "${tpu[@]}" delete "$name" "${where[@]}" --quiet
}

for action in "${actions[@]}"; do
  "$action"
done
