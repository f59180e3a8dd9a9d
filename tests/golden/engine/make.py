#!/usr/bin/env python3
# tests/golden/engine/make.py - makes the checkpoints and expected values that the engine's tests use.
#
#     python3 -m venv /tmp/hf && /tmp/hf/bin/pip install torch transformers
#     /tmp/hf/bin/python tests/golden/engine/make.py [CASE...]
# For each architecture a tiny random checkpoint is saved by Hugging Face transformers, loaded again in
# float32 and run on the CPU: logits of every prompt position, then 16 greedy tokens. A case is
# config.json, model*.safetensors and expected.safetensors: prompt.I, greedy.I (int32), logits.I (f32)
# for prompts 0..2, and in its metadata the versions used. SPDX-License-Identifier: Apache-2.0
import json
import os
import shutil
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import (AutoModelForCausalLM, FalconConfig, LlamaConfig, MistralConfig, Qwen2Config,
                          Qwen3Config)

HERE = os.path.dirname(os.path.abspath(__file__))
VOCAB, NEW = 128, 16
COMMON = dict(vocab_size=VOCAB, bos_token_id=None, eos_token_id=None, pad_token_id=None)
LLAMA = dict(COMMON, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
             max_position_embeddings=128)
ROPE3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
             original_max_position_embeddings=16)

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
CASES = {
    # name: (config, dtype on disk, bytes of a file)
    "llama2": (LlamaConfig(**LLAMA, num_attention_heads=4, num_key_value_heads=4, rms_norm_eps=1e-6,
                           tie_word_embeddings=False), torch.float32, None),
    "llama31": (LlamaConfig(**LLAMA, num_attention_heads=8, num_key_value_heads=2, head_dim=8,
                            rms_norm_eps=1e-5, rope_theta=500000.0, rope_scaling=ROPE3,
                            tie_word_embeddings=True), torch.bfloat16, None),
    "llama-bias": (LlamaConfig(**LLAMA, num_attention_heads=4, num_key_value_heads=2,
                               attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
                   torch.bfloat16, None),
    "mistral": (MistralConfig(**LLAMA, num_attention_heads=8, num_key_value_heads=4, head_dim=4,
                              sliding_window=12, tie_word_embeddings=False), torch.float16, None),
    "qwen2": (Qwen2Config(**LLAMA, num_attention_heads=4, num_key_value_heads=2,
                          use_sliding_window=False, tie_word_embeddings=True), torch.bfloat16, 40000),
    "qwen3": (Qwen3Config(**LLAMA, num_attention_heads=4, num_key_value_heads=1, head_dim=16,
                          use_sliding_window=False, tie_word_embeddings=False), torch.float32, 100000),
    "falcon-7b": (FalconConfig(**COMMON, hidden_size=32, num_attention_heads=4, num_hidden_layers=4,
                               multi_query=True, parallel_attn=True, bias=False, alibi=False,
                               new_decoder_architecture=False, max_position_embeddings=128),
                  torch.bfloat16, None),
    "falcon-40b": (FalconConfig(**COMMON, hidden_size=32, num_attention_heads=8, num_kv_heads=2,
                                num_hidden_layers=4, new_decoder_architecture=True, bias=False,
                                alibi=False, max_position_embeddings=128), torch.bfloat16, None),
    "falcon-11b": (FalconConfig(**COMMON, hidden_size=32, num_attention_heads=8, num_kv_heads=4,
                                num_hidden_layers=4, new_decoder_architecture=True, bias=False,
                                alibi=False, num_ln_in_parallel_attn=1, tie_word_embeddings=False,
                                max_position_embeddings=128), torch.bfloat16, None),
    "falcon-mha": (FalconConfig(**COMMON, hidden_size=32, num_attention_heads=4, num_hidden_layers=4,
                                multi_query=False, parallel_attn=False, bias=True, alibi=False,
                                new_decoder_architecture=False, max_position_embeddings=128),
                   torch.bfloat16, None),
}
SEED = {"qwen2": 3, "falcon-mha": 5}  # where the sum of the name's letters gives near ties


def scramble(model, gen):
    """Weights with which every part of the model matters: unit gain, norms and biases off neutral.
    A tied embedding is small beside what the layers add, or each token would predict itself."""
    scale = 0.15 if model.config.tie_word_embeddings else 1.0
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            if p.dim() == 2 and "embed" in name:
                p.copy_(scale * noise)
            elif p.dim() == 2:
                p.copy_(noise / p.shape[1] ** 0.5)
            elif name.endswith("bias"):
                p.copy_(0.2 * noise)
            else:
                p.copy_(1 + 0.2 * noise)


def make(name):
    config, dtype, shard = CASES[name]
    out = os.path.join(HERE, name)
    shutil.rmtree(out, ignore_errors=True)
    gen = torch.Generator().manual_seed(sum(map(ord, name)) + SEED.get(name, 0))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    scramble(model, gen)
    model = model.to(dtype)
    model.save_pretrained(out, max_shard_size=shard or 10**9)
    path = os.path.join(out, "generation_config.json")
    if os.path.exists(path):
        os.remove(path)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    tensors, margin = {}, float("inf")
    for i, length in enumerate((1, 5, 26)):
        prompt = torch.randint(0, VOCAB, (1, length), generator=gen)
        ids = prompt
        with torch.no_grad():
            logits = model(prompt).logits[0]
            for _ in range(NEW):  # whole passes: independent of any KV cache
                last = model(ids).logits[0, -1]
                top = last.topk(2).values
                margin = min(margin, float(top[0] - top[1]))
                ids = torch.cat([ids, last.argmax().view(1, 1)], dim=1)
        tensors[f"prompt.{i}"] = prompt[0].to(torch.int32)
        tensors[f"greedy.{i}"] = ids[0, length:].to(torch.int32)
        tensors[f"logits.{i}"] = logits.to(torch.float32).contiguous()
    meta = {"torch": torch.__version__, "transformers": transformers.__version__,
            "least_margin": f"{margin:.3g}"}
    save_file(tensors, os.path.join(out, "expected.safetensors"), metadata=meta)
    size = sum(os.path.getsize(os.path.join(out, f)) for f in os.listdir(out))
    print(f"{name}: {size} bytes, least margin {margin:.3g}, greedy "
          f"{tensors['greedy.1'].tolist()}")
    assert margin > 1e-3, "a near tie: choose another seed"


for case in sys.argv[1:] or CASES:
    make(case)
