#!/bin/bash
#SBATCH --job-name=lmac
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --mem-per-cpu=2G
#SBATCH --time=24:00:00
#SBATCH --requeue
#
# Explain a corpus on eight machines, with a process for each core:
#
#     sbatch slurm.sh CORPUS MODEL OUT [OPTIONS OF lmac explain]
#
# All machines see the three. If the job is ended, the same line goes on.
set -euo pipefail

corpus=$1 model=$2 out=$3
shift 3

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))

srun torchrun \
    --nnodes "$SLURM_NNODES" \
    --nproc_per_node "$SLURM_CPUS_PER_TASK" \
    --rdzv_backend c10d \
    --rdzv_id "$SLURM_JOB_ID" \
    --rdzv_endpoint "$first:$port" \
    -m lmac_sb explain "$corpus" \
    --model "$model" --out "$out" --write shards "$@"
