#!/bin/sh
# Train in pieces on a machine that is lent for minutes, from a checkout, with nothing installed but the requirements.
#
#   python scripts/split_by_photo.py DATA runs/carried --list DATA/subset.txt --copy    # here: what is carried over
#   sh scripts/train_on_gpu.sh runs/carried runs/mine steps=20000 batch=64              # there; again after every piece
#
# A piece ends after PIECE (9m): the run's state is saved, and its averaged weights are exported to RUN/ema.safetensors,
# small enough to be carried back. The same command goes on in the same RUN. On a fresh machine, where the state is lost,
# INIT=ema.safetensors starts warm from what came back. GPUS=4 trains on four of them.
set -eu
data=$1 run=$2
shift 2
PYTHONPATH=$(cd "$(dirname "$0")/.." && pwd)${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
python=${PYTHON:-python3}
train() {
    "$python" ${GPUS:+-m torch.distributed.run --standalone --nproc-per-node "$GPUS"} -m dreamsr train \
        --out "$run" --stop-after "${PIECE:-9m}" "$@"
}

if [ -f "$run/state.safetensors" ]; then
    train --resume
else
    train --data "$data/train" --val "$data/val" ${INIT:+--init "$INIT"} "$@"
fi
"$python" -m dreamsr export "$run" "$run/ema.safetensors" --overwrite
