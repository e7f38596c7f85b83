# A machine with GPUs, with the versions that the suite passed with; torch's wheel brings its CUDA libraries, the host its driver.
#
#   docker build --tag papo .
#   docker run --gpus all --ipc host --volume "$PWD/outputs:/runs/outputs" papo train
#   docker run --gpus all --ipc host --volume "$PWD/outputs:/runs/outputs" --volume "$HOME/.cache/huggingface:/huggingface" \
#     papo train +experiment=papo_geo3k
FROM python:3.11-slim

# git: run.json names the commit where the sources are a clone. gcc: Triton compiles what launches its kernels.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc git libc6-dev && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore HF_HOME=/huggingface

WORKDIR /opt/papo
# torch first: a layer of several GB that the sources do not change.
COPY constraints constraints
RUN pip install --constraint constraints/torch.txt --constraint constraints/locked.txt torch setuptools
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY papo papo
COPY conf conf
RUN pip install --constraint constraints/torch.txt --constraint constraints/locked.txt --no-build-isolation '.[lora,sweep,tensorboard]'

WORKDIR /runs
ENTRYPOINT ["papo"]
CMD ["--help"]
