#!/usr/bin/env bash
# How the checkpoint at the root was made: films the world, makes the untrained model, and runs every stage. All runs
# but the last took 303 minutes on two cores that had other work too, and the last one 88; films and vision tower come on top.
# What is there already is kept, and a run that was broken off goes on. ../run.sh is the recipe of the next checkpoint.
#
#     training/tiny/shipped/run.sh WORK      with the package installed (`pip install ".[train,cpu]"`)
set -euo pipefail
settings=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && cd "$1"
# Threads that spin while they wait cost more than they gain on so small a model.
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0

film() { # FOLDER SPLIT KIND COUNT [OPTIONS]
    if [ ! -e "$1/$2_$3.jsonl" ]; then
        fila-video make-videos --output "$1" --side 64 --workers 2 --split "$2" --kind "$3" --count "$4" "${@:5}"
    fi
}
film world train picture 16000
film world train picture-questions 12000
film world train few 6000 --questions 12 --choice-share 0.4
film world train pair 6000 --questions 11 --choice-share 0.1
film world train row 20000 --questions 40 --choice-share 0.05
film world train short 8000 --questions 10
film world train rare 3000 --questions 10 --min-duration 60 --max-duration 150
film world train clip 3000
# The same videos once more, with every question that can be asked about them.
film world/asked train short 8000 --questions 40 --choice-share 0.15
film world/asked train rare 3000 --questions 40 --choice-share 0.15 --min-duration 60 --max-duration 150
# Things of one video in two colors, or in one.
film world/alike train row 4000 --questions 40 --choice-share 0.05 --colors 2
film world/alike train short 2000 --questions 40 --choice-share 0.15 --colors 2
film world/alike train pair 5000 --questions 40 --choice-share 0.05 --colors 1
film world validation short 100
film world validation rare 24 --min-duration 600 --max-duration 600
film world test short 100
film world test rare 60 --min-duration 600 --max-duration 600
[ -e world/long/README.md ] || fila-video build-dataset --annotations world/train_clip.jsonl --videos world \
    --output world/long --count 1000 --min-duration 40 --max-duration 120

visitors="--compositions train --wordings train --style varied --boxed 0.3 --light 0.5 1.4 --moving 0.2
    --codecs h264 h264 hevc vp9 mpeg4 --rates 6 8 12"
every="$visitors --ask what color order before after count when first motion"
film world/visitors train few 1000 --questions 12 --choice-share 0.2 --refusals 4 $every
film world/visitors train row 1500 --questions 18 --choice-share 0.1 --refusals 2 $every
film world/visitors train empty 300 --questions 4 --refusals 8 $visitors
film world/visitors train short 5000 --questions 14 --choice-share 0.2 --refusals 3 $every
film world/visitors train rare 1400 --questions 14 --choice-share 0.2 --refusals 3 $every --min-duration 60 --max-duration 300
film world/visitors train crowded 300 --questions 16 --choice-share 0.2 --refusals 3 $every \
    --min-duration 150 --max-duration 300
film world/visitors train clip 1500 $visitors
film world/visitors/alike train short 1500 --questions 14 --choice-share 0.2 --colors 2 --refusals 3 $every
# The same films once more, which are also asked whether something is there.
film world/visitors/there train few 1000 --questions 12 --choice-share 0.2 --refusals 4 $every there
film world/visitors/there train row 1500 --questions 18 --choice-share 0.1 --refusals 2 $every there
film world/visitors/there train short 5000 --questions 14 --choice-share 0.2 --refusals 3 $every there
film world/visitors/there train rare 1400 --questions 14 --choice-share 0.2 --refusals 3 $every there \
    --min-duration 60 --max-duration 300
film world/visitors/there/alike train short 1500 --questions 14 --choice-share 0.2 --colors 2 --refusals 3 $every there
[ -e world/visitors/long/README.md ] || fila-video build-dataset --annotations world/visitors/train_clip.jsonl \
    --videos world/visitors --output world/visitors/long --count 300 --min-duration 40 --max-duration 120

[ -e initial/config.json ] || python -m fila_video.training.tiny.make_initial_checkpoint initial
[ -e seeing/config.json ] || python -m fila_video.training.tiny.pretrain_vision initial world/train_picture.jsonl seeing
train() { # SETTINGS OUTPUT [OVERRIDES]
    [ -e "$2/model.safetensors" ] || python -m fila_video.training.train "$settings/$1.yaml" output="$2" "${@:3}"
}
train stage1_align stage1
train stage2_knowledge stage2
train stage3_image stage3
train stage4_few stage4_few
train stage4_short stage4_short
train stage4_pair stage4_pair
# Kinds of question that stay at chance while everything is asked at once may be learned when nothing else is asked.
train stage4_pair stage4_color model=stage4_pair 'data.0.questions={kind: [color], form: [free]}' \
    training.max_steps=120 training.warmup_steps=3 training.seed=7
train stage4_pair stage4_order model=stage4_color 'data.0.questions={kind: [order, color], form: [free]}' \
    training.max_steps=150 training.warmup_steps=3 training.seed=8
train stage4_pair stage4_neighbours model=stage4_order \
    'data.0.questions={kind: [order, color, before, after], form: [free]}' \
    training.max_steps=200 training.warmup_steps=3 training.seed=9
train stage4_pair stage4_places model=stage4_neighbours 'data.0.questions={kind: [order], form: [free]}' \
    training.max_steps=180 training.warmup_steps=3 training.seed=10
train stage4_pair stage4_skills model=stage4_places training.max_steps=160 training.warmup_steps=3 training.seed=11
train stage4_long stage4_long
train stage4_long stage4_sequence model=stage4_long 'data.0.questions={kind: [order, before, after]}' \
    training.max_steps=160 training.warmup_steps=3 training.seed=13
train stage4_video stage4_all
train stage4_long stage4_when model=stage4_all \
    'data=[&row {path: world/train_row.jsonl, count: 4000, questions: {kind: [when], form: [free]}}, {<<: *row, path: world/asked/train_short.jsonl}]' \
    'sampling={num_scenes: [16, 32], selection: uniform}' training.max_steps=150 training.warmup_steps=5 training.seed=21
train stage4_long stage4_ordinals model=stage4_when data.0.path=world/asked/train_short.jsonl \
    'data.0.questions={kind: [when, order, first], form: [free]}' \
    batch_size=8 training.per_device_train_batch_size=8 training.max_steps=150 training.warmup_steps=5 training.seed=22
train stage4_asked stage4_asked
# What is right before or after a thing is found from here on; the heads that it takes did not come by themselves.
[ -e stage4_looking/config.json ] || python -m fila_video.training.tiny.look_back stage4_asked stage4_looking
train stage4_long stage4_rows model=stage4_looking \
    'data=[{path: world/train_row.jsonl, questions: {kind: [caption, order, before, after], form: [free]}}]' \
    'sampling={num_scenes: [8], selection: uniform}' \
    'learning_rates={multi_modal_projector: 3.0e-3, language_model: 3.0e-3, scene_merger: 1.0e-3}' \
    training.max_steps=300 training.seed=31
train stage4_mix stage4_mix
train stage4_wide stage4_wide
train stage4_long stage4_shapes model=stage4_wide \
    'data=[{path: world/train_pair.jsonl, questions: {kind: [color], form: [free]}}]' \
    'sampling={num_scenes: [6, 8], selection: uniform}' \
    'learning_rates={multi_modal_projector: 2.0e-3, language_model: 2.0e-3, scene_merger: 1.0e-3}' \
    training.max_steps=300 training.warmup_steps=5 training.seed=35
train stage4_full stage4_full
train stage4_full stage4_more model=stage4_full data.1.count=6000 data.3.count=800 \
    'data.1.questions={kind: [color, order, before, after, count, when, first, caption]}' \
    training.max_steps=700 training.seed=37
# Until here, things are told apart by their color. Where all have the same, their shape is learned.
train stage4_long stage4_alike model=stage4_more \
    'data=[{path: world/alike/train_pair.jsonl, questions: {kind: [count, order, before, after, when, first, caption], form: [free]}}]' \
    'sampling={num_scenes: [6, 8], selection: uniform}' \
    'learning_rates={multi_modal_projector: 2.0e-3, language_model: 2.0e-3, scene_merger: 1.0e-3}' \
    training.max_steps=400 training.warmup_steps=5 training.seed=38
train stage4_every stage4_every
# The same to a rate of zero.
train stage4_every stage4_last model=stage4_every training.max_steps=300 training.lr_scheduler_type=cosine training.seed=42
# What visitors do: other words, questions in vain, other pictures, and any number of scenes.
train stage4_visitors stage4
