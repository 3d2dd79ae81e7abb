"""Small causal LMs of many architectures, made from configs with random weights, with windows shorter than prompts."""

import torch
from conftest import CPU
from transformers import AutoConfig, AutoModelForCausalLM

WINDOW = 5  # tokens that a layer with a window sees; prompts are longer
PLAIN = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
GPT = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
ENDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA = {"state_size": 8, "conv_kernel": 3, "expand": 2}
ARCHITECTURES = {
    "gpt_neox": PLAIN,
    "llama": PLAIN,
    "mistral": PLAIN | {"sliding_window": WINDOW},
    "mixtral": PLAIN | MOE | {"sliding_window": WINDOW},
    "qwen2": PLAIN | SLIDING | {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": PLAIN | {"head_dim": 8},
    "qwen3_moe": PLAIN | MOE | {"head_dim": 8},
    "gemma": PLAIN | {"head_dim": 8},
    "gemma2": PLAIN | SLIDING | {"head_dim": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": PLAIN | SLIDING | {"head_dim": 8, "query_pre_attn_scalar": 8},
    "gpt_oss": PLAIN | MOE | SLIDING | {"head_dim": 8},
    "llama4_text": PLAIN
    | {
        "head_dim": 8,
        "attention_chunk_size": WINDOW,
        "intermediate_size_mlp": 48,
        "num_local_experts": 2,
        "no_rope_layers": [1, 0],
    },
    "phi": PLAIN,
    "phi3": PLAIN | {"sliding_window": WINDOW},
    "stablelm": PLAIN,
    "starcoder2": PLAIN | {"sliding_window": WINDOW},
    "olmo2": PLAIN,
    "olmo3": PLAIN | SLIDING,
    "cohere2": PLAIN | SLIDING,
    "smollm3": PLAIN | {"no_rope_layers": [1, 0]},
    "granite": PLAIN,
    "persimmon": PLAIN,
    "deepseek_v3": PLAIN
    | {
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
    },
    "opt": PLAIN | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt2": GPT | ENDS,
    "gptj": GPT | ENDS | {"rotary_dim": 4},
    "codegen": GPT | ENDS | {"rotary_dim": 4},
    "gpt_bigcode": GPT | ENDS,
    "gpt_neo": PLAIN
    | {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
    "bloom": PLAIN | {"n_head": 4, "n_layer": 2},
    "mpt": PLAIN | {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
    "falcon": PLAIN | {"alibi": False},
    "falcon_alibi": PLAIN | {"alibi": True, "model_type": "falcon"},
    "xglm": PLAIN | {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "init_std": 0.3},
    "biogpt": PLAIN,
    "mamba": PLAIN | MAMBA,
    "mamba2": PLAIN | MAMBA | {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 4},
    "recurrent_gemma": PLAIN
    | {"lru_width": 32, "attention_window_size": WINDOW, "block_types": ["recurrent", "attention"]},
    "jamba": PLAIN
    | MOE
    | {"use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8},
    "lfm2": PLAIN | {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "qwen3_next": PLAIN
    | MOE
    | {
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "shared_expert_intermediate_size": 16,
    },
    "rwkv": PLAIN | {"attention_hidden_size": 32, "context_length": 64},
    "bart": PLAIN
    | {
        "d_model": 32,
        "decoder_layers": 2,
        "encoder_layers": 1,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 48,
        "init_std": 0.3,
    },
    "xlnet": {"vocab_size": 60, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48} | ENDS,
    "bert": PLAIN,
    "bert_decoder": PLAIN | {"is_decoder": True, "model_type": "bert"},
    "ctrl": PLAIN | {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 48},
}


def make(name: str, **changes):
    """The network of a name, in float32; its weights belong to a seed."""
    given = {"model_type": name} | ARCHITECTURES[name] | changes
    config = AutoConfig.for_model(**given)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.compute = CPU
    return model
