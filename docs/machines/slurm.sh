#!/bin/bash
# One trial on four nodes of eight GPUs: sbatch docs/machines/slurm.sh
#SBATCH --job-name=gnomon
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=08:00:00
#SBATCH --requeue
# SIGTERM two minutes before the end: the run stops with a checkpoint.
#SBATCH --signal=TERM@120

# One process a node has all of its GPUs. Without this line jax gives each process one:
# then ask for --ntasks-per-node=8.
export JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7

srun python -m gnomon.experiments.train \
    --config=lm.py \
    --workdir=/shared/runs/lm \
    --config.mesh.data=32 \
    --config.mesh.rules=fsdp \
    --distributed
