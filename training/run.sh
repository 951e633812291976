#!/bin/sh
# The whole pipeline: from a vision encoder and a language model to FiLA-Video-7B and FiLA-Base-7B, on one machine of 8 GPUs.
# DATA holds the sets that the files of the stages name. A stage that was stopped goes on when this is started again.
set -eu
cd "$(dirname "$0")/.."

stage() {
    [ -e "RUNS/$1/model.safetensors.index.json" ] || [ -e "RUNS/$1/model.safetensors" ] ||
        accelerate launch --config_file training/accelerate/fsdp2.yaml -m fila_video.training.train "training/$1.yaml"
}

# float32: the stages compute in bfloat16 and keep their weights whole, or steps of 2e-6 would vanish.
[ -e RUNS/initial ] || fila-video convert --language-model Qwen/Qwen2-7B-Instruct \
    --vision-tower google/siglip-so400m-patch14-384 --dtype float32 RUNS/initial

stage stage1_align
stage stage2_knowledge
stage stage3_image

# LongVideo (section 3.3), of the sets of captions.
fila-video build-dataset --annotations DATA/LLaVA-Video-178K/*/*_cap_processed.json \
    --videos DATA/LLaVA-Video-178K --output DATA/LongVideo --count 40000 || [ $? -eq 3 ]

stage stage4_video
stage stage4_base
