#!/usr/bin/env bash
# Makes the default checkpoint from nothing: films the world, teaches the vision tower to see, and trains the four stages.
#
#     training/tiny/run.sh WORK [SEED]          with the package installed in the active environment
#     SMOKE=1 training/tiny/run.sh SMOKE_WORK   a few films and steps of every part, in minutes
#
# It may be stopped at any time: started again, it goes on. The result is WORK/stage4; README.md says how long it takes.
set -euo pipefail
settings=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/done" && cd "$1"
seed=${2:-43} smoke=${SMOKE:-0}
[ -e asked ] || echo "seed $seed, SMOKE=$smoke" >asked
grep -qxF "seed $seed, SMOKE=$smoke" asked || { echo "$PWD was begun with $(cat asked): name another folder." >&2; exit 2; }
# Threads that spin while they wait cost more than they gain on so small a model.
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0

film() { # FOLDER KIND COUNT [OPTIONS]; the records are written last
    [ -e "$1/train_$2.jsonl" ] || fila-video make-videos --output "$1" --kind "$2" --count $((smoke ? 8 : $3)) \
        --seed "$seed" --side 64 --workers 2 --compositions train --wordings train --style varied --boxed 0.4 \
        --light 0.5 1.4 --moving 0.2 --codecs h264 h264 hevc vp9 mpeg4 --rates 6 8 12 "${@:4}"
}
once() { # PART COMMAND...
    [ -e "done/$1" ] || { "${@:2}" && touch "done/$1"; }
}
train() { # STAGE [OVERRIDES FOR SMOKE]
    local quick=("${@:2}" batch_size=4 training.per_device_train_batch_size=4 training.logging_steps=1)
    once "$1" python -m fila_video.training.train "$settings/$1.yaml" training.seed="$seed" "${quick[@]:0:smoke * 99}"
}
grep "^[^#]" "$settings/films.txt" | while read -r -a line; do film "${line[@]}" </dev/null; done
once long fila-video build-dataset --annotations world/train_clip.jsonl --videos world --output world/long \
    --count $((smoke ? 4 : 600)) --min-duration 40 --max-duration 120

once initial python -m fila_video.training.tiny.make_initial_checkpoint initial --seed "$seed" --look-back
once seeing python -m fila_video.training.tiny.pretrain_vision initial world/{,shapes/,colors/}train_picture.jsonl seeing \
    --seed "$seed" --epochs $((smoke ? 1 : 12))
train stage1_align training.max_steps=2
train stage2_knowledge training.max_steps=2
train stage3_image training.max_steps=2
train stage4_video phases.{0..11}.steps=1 phases.12.steps=2 training.lr_scheduler_kwargs.num_decay_steps=2 training.warmup_steps=1
once losses python -m fila_video.training.loss_curves losses.png seeing stage1 stage2 stage3 stage4
