#!/usr/bin/env bash
# Makes the trained default checkpoint: films the world, makes the untrained model, and runs every stage. The runs took 39
# minutes on two cores that had other work too. What is there already is kept, and a stage that was broken off goes on.
#
#     training/tiny/run.sh WORK      with the package installed in the active environment (`pip install ".[train,cpu]"`)
set -euo pipefail
settings=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && cd "$1"
# Threads that spin while they wait cost more than they gain on so small a model.
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0

film() { # SPLIT KIND COUNT [OPTIONS]
    if [ ! -e "world/$1_$2.jsonl" ]; then
        fila-video make-videos --output world --side 64 --workers 2 --split "$1" --kind "$2" --count "$3" "${@:4}"
    fi
}
film train picture 16000
film train picture-questions 12000
film train short 8000 --questions 10
film train rare 1500 --questions 10 --min-duration 60 --max-duration 150
film train clip 3000
film validation short 100
film validation rare 24 --min-duration 600 --max-duration 600
film test short 100
film test rare 60 --min-duration 600 --max-duration 600
[ -e world/long/README.md ] || fila-video build-dataset --annotations world/train_clip.jsonl --videos world \
    --output world/long --count 1000 --min-duration 40 --max-duration 120

[ -e initial/config.json ] || python -m fila_video.training.make_initial_checkpoint initial
[ -e seeing/config.json ] || python -m fila_video.training.pretrain_vision initial world/train_picture.jsonl seeing
for stage in stage1_align stage2_knowledge stage3_image stage4_short stage4_video; do
    output=$(sed -n 's/^output: //p' "$settings/$stage.yaml")
    [ -e "$output/model.safetensors" ] || python -m fila_video.training.train "$settings/$stage.yaml"
done
