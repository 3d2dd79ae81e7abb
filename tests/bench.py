"""`make bench`: how fast people are served, as ratios within one run. Nothing here passes or fails.

Run it on a machine that does nothing else. The sampler is compared with transformers' generate on the same model and
prompts; `roads` with DVC's own status of the same graph. A ratio is the other's time divided by ours.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from stages.learning.sampling import draw


def seconds(work: Callable[[], object], runs: int = 5) -> list[float]:
    """Wall time of each of several runs, after one that is not counted."""
    work()
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return times


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], what: str) -> None:
    """Print median times and the median of the pairwise ratios theirs / ours."""
    ours_times, theirs_times = seconds(ours), seconds(theirs)
    ratio = statistics.median(b / a for a, b in zip(ours_times, theirs_times))
    print(
        f"{name}: {statistics.median(ours_times):.3f} s, {what} {statistics.median(theirs_times):.3f} s, "
        f"ratio {ratio:.2f}",
        flush=True,
    )


def network(vocabulary: int, width: int, layers: int) -> GPTNeoXForCausalLM:
    """A GPT-NeoX with random weights, as the settings have it."""
    torch.manual_seed(0)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=4 * width,
            max_position_embeddings=512,
            pad_token_id=0,
        )
    ).eval()


def sampling(name: str, model: GPTNeoXForCausalLM, prompts: int, length: int, count: int, new: int) -> None:
    """Our sampler against generate: ``count`` completions of exactly ``new`` tokens for prompts of ``length``."""
    ids = torch.randint(5, model.config.vocab_size, (prompts, length))
    world = {"max_prompt": length, "max_completion": new, "eos": None, "pad": 0}
    compare(
        f"sampling {name} ({prompts} prompts of {length} tokens x {count} completions of {new})",
        lambda: draw(model, ids.tolist(), count, world, 1.0, ("bench",)),
        lambda: model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            top_p=1.0,
            max_new_tokens=new,
            min_new_tokens=new,
            num_return_sequences=count,
            pad_token_id=0,
        ),
        "generate",
    )


STATUS = "from dvc.repo import Repo; Repo('.').status()"


def command(*words: str) -> Callable[[], object]:
    """Run Python with these words, quietly."""
    return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)


def main() -> None:
    """Print one line a comparison."""
    torch.set_num_threads(1)
    sampling("tldr", network(4096, 128, 4), 20, 128, 25, 48)
    sampling("road world", network(43, 64, 2), 32, 4, 8, 4)
    status = command("-c", STATUS)
    compare("roads status", command("-m", "flows", "status"), status, "in-process DVC status")
    compare("roads run with nothing to do", command("-m", "flows", "run"), status, "in-process DVC status")


if __name__ == "__main__":
    main()
