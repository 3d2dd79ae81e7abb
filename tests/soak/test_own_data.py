"""Any data set and any causal LM: a folder in hub layout and a Llama, through the whole pipeline."""

import pandas as pd
from conftest import edit_params, new_project, roads
from transformers import LlamaConfig, LlamaForCausalLM

from stages.records.resolver import over
from stages.records.seeds import generator
from stages.worlds import encoding

WORDS = [f"{a}{b}" for a in ("ba", "de", "ki", "lo", "mu") for b in ("ra", "sen", "tok", "vil")]


def sentences(count, length, purpose):
    rng = generator("test", purpose)
    return [" ".join(rng.choice(WORDS, size=length)) for _ in range(count)]


def test_a_folder_in_hub_layout_and_a_llama_go_every_road(tmp_path):
    project = new_project(tmp_path / "project", "micro")
    data, model = tmp_path / "posts", tmp_path / "llama"
    (data / "data").mkdir(parents=True)
    rows = pd.DataFrame({"prompt": sentences(80, 9, "prompts"), "completion": sentences(80, 3, "completions")})
    rows.to_parquet(data / "data/train-00000-of-00001.parquet")
    (data / "README.md").write_text("# Posts\n")
    tokenizer = encoding.train_tokenizer([*rows["prompt"], *rows["completion"]], 300)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), intermediate_size=64, pad_token_id=None, **sizes))
    llama.save_pretrained(model)
    tokenizer.save_pretrained(model)

    def change(params):
        shares = {"demonstrations": 0.4, "validation": 0.2, "test": 0.2, "held_out": 0.1, "draw": 0}
        corpus = {"world": "text", "reward": "rouge_l", "tokenizer": "model", "max_prompt": 40, "max_completion": 12}
        micro, gap = params["settings"]["micro"], params["settings"]["gap"]
        base = {**gap["base"], **micro["base"], "model": "data/inputs/mine/model", "steps": 5}
        del micro["extends"]
        params["settings"] = {"mine": over(gap, micro) | {"corpus": corpus | shares, "base": base}}
        params["study"].update(settings=["mine"], verification=["mine"])

    edit_params(project, change)
    missing = roads(project, "run")
    assert missing.returncode == 2 and "roads import mine" in missing.stderr
    for source in (data, model):
        imported = roads(project, "import", "mine", str(source))
        assert imported.returncode == 0, imported.stderr
    done = roads(project, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    results = pd.read_json(project / "data/report/results.json")
    assert {"base", "best_of__global", "local", "offline", "online", "online_after"} <= set(results["arm"])
    assert results.query("metric == 'rouge_l'")["value"].between(0, 1).all()
    assert "LlamaForCausalLM" in (project / "data/policy/mine/0/online/config.json").read_text()
