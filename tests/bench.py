"""`make bench`: how fast people are served, as ratios within one run. Nothing here passes or fails.

Run it on a machine that does nothing else. The sampler is compared with transformers' generate on the same model and
prompts; a step of training with TRL as shipped and with a bare loop (bench_steps.py); `roads` with DVC's own status of
the same graph; portable numerics with native ones, by processor time; a statement with the stage that it is about;
`roads verify --all` with sha256sum of the same bytes. A ratio is the other's time divided by ours.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from stages.learning.sampling import draw
from stages.records import numerics
from stages.records.seeds import Uniforms
from tests.conftest import CPU, edit_params, follow, new_project
from tests.stated import STAGES, made_in, record, state


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
    model = GPTNeoXForCausalLM(
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
    model.compute = CPU
    return model


def sampling(name: str, model: GPTNeoXForCausalLM, prompts: int, length: int, count: int, new: int) -> None:
    """Our sampler against generate: ``count`` completions of exactly ``new`` tokens for prompts of ``length``."""
    ids = torch.randint(5, model.config.vocab_size, (prompts, length))
    asked = pd.DataFrame({"prompt_id": range(prompts), "prompt_ids": ids.tolist(), "visit": 0})
    world = {"max_prompt": length, "max_completion": new, "eos": None, "pad": 0}
    compare(
        f"sampling {name} ({prompts} prompts of {length} tokens x {count} completions of {new})",
        lambda: draw(model, asked, count, world, 1.0, Uniforms("test", "bench")),
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


TRAINED = ("offline", "online")  # stages, of the arms of these names
STEPS = 40  # of each
NEEDED = ("corpus@gap", "base@gap", "pool@gap-0", "preferences@gap-0", "reward@gap-0-global", "sample@gap-0")


def prepare(project: Path) -> None:
    """A project with all that training in ``gap`` reads, of a base policy that was trained for a moment."""

    def shorten(data: dict) -> None:
        gap = data["settings"]["gap"]
        gap["base"].update(steps=60)
        gap["sample"].update(completions=8)
        gap["arms"]["best_of"]["of"] = 8
        gap["offline"].update(steps=STEPS)
        gap["online"].update(steps=STEPS)
        gap["curve"].update(points=1)
        for arm in gap["arms"].values():
            arm.update({"rounds": STEPS} if arm.get("rounds", 0) > STEPS else {})

    new_project(project, "data")
    edit_params(project, lambda data: data["study"].update(settings=["gap"], arms=["base", *TRAINED], seeds=[0]))
    edit_params(project, shorten)
    follow(project)
    run_stage(project, "check")
    for name in NEEDED:
        stage, _, cell = name.partition("@")
        run_stage(project, stage, "--cell", cell)


def steps(project: Path) -> None:
    """Milliseconds per step of both roads, by portable numerics."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench_steps", str(project)]
    env = numerics.environment(os.environ | {"OMP_NUM_THREADS": "1"}, numerics.PORTABLE)
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    for name, (ours, *others) in found.items():
        said = ", ".join(f"{other} {ms:.1f} ms, ratio {ms / ours:.2f}" for other, ms in others)
        print(f"an {name} step: {ours:.1f} ms, {said}", flush=True)


def prices(project: Path) -> None:
    """Processor time of training in ``gap`` by portable and by native numerics, on the same inputs, in turn."""
    for stage in TRAINED:
        spent = {numerics.PORTABLE: [], numerics.NATIVE: []}
        for kind in [*spent] * 3:
            edit_params(project, lambda data: data["settings"]["gap"]["compute"].update(numerics=kind))  # noqa: B023
            follow(project)
            spent[kind].append(run_stage(project, stage, "--cell", f"gap-0-{stage}"))
        ours, theirs = (statistics.median(times) for times in spent.values())
        print(
            f"{STEPS} {stage} steps, portable: {ours:.2f} s, native {theirs:.2f} s, ratio {theirs / ours:.2f}",
            flush=True,
        )


STATED = """
import time
from stages import {stage}
from stages.provenance.statements import Statement, declared
begun = time.perf_counter()
Statement(declared("{stage}", "gap-0-{stage}"), "python -m stages.{stage}").write()
print(time.perf_counter() - begun)
"""


def stating(project: Path) -> None:
    """The statement of a stage of ``gap``, as the first and only one of its process, beside the stage's work."""
    for stage in TRAINED:
        alone = [sys.executable, "-c", STATED.format(stage=stage)]
        spent = [
            float(subprocess.run(alone, cwd=project, check=True, capture_output=True, text=True).stdout)
            for _ in range(5)
        ]
        ours, whole = statistics.median(spent), run_stage(project, stage, "--cell", f"gap-0-{stage}")
        print(f"the statement of {STEPS} {stage} steps: {1000 * ours:.0f} ms, of {whole:.2f} s: {ours / whole:.1%}")


def run_stage(project: Path, stage: str, *words: str) -> float:
    """Seconds of processor time of a stage without its imports."""
    events = project / "events"
    events.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"stages.{stage}", *words]
    env = {**os.environ, "ALL_ROADS_EVENTS": str(events)}
    subprocess.run(command, cwd=project, env=env, check=True, capture_output=True)
    return json.loads(events.read_text().splitlines()[-1])["metrics"]["processor_seconds"]


STATUS = "from dvc.repo import Repo; Repo('.').status()"


def command(*words: str) -> Callable[[], object]:
    """Run Python with these words, quietly."""
    return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)


def verifying(folder: Path) -> None:
    """Outs of 1 GiB and their copies in DVC's cache; sha256sum has a process for each core."""
    with made_in(folder):
        for number in range(4):
            Path(f"data/base/model/{number}").write_bytes(os.urandom(1 << 28))
        record()
        state(*STAGES)
        files = [str(p) for top in ("data", ".dvc/cache/files") for p in Path(top).rglob("*") if p.is_file()]
        summing = ["xargs", "-n", "1", "-P", str(len(os.sched_getaffinity(0))), "sha256sum"]
        given = "\n".join(files).encode()
        compare(
            "roads verify --all, 2 GiB",
            command("-m", "flows", "verify", "--all"),
            lambda: subprocess.run(summing, input=given, check=True, capture_output=True),
            "sha256sum",
        )


def main() -> None:
    """Print one line a comparison."""
    torch.set_num_threads(1)
    sampling("tldr", network(4096, 128, 4), 20, 128, 25, 48)
    sampling("road world", network(43, 64, 2), 32, 4, 8, 4)
    status = command("-c", STATUS)
    compare("roads status", command("-m", "flows", "status"), status, "in-process DVC status")
    compare("roads run with nothing to do", command("-m", "flows", "run"), status, "in-process DVC status")
    compare(
        "roads why of a stage", command("-m", "flows", "why", "online@gap-0-online"), status, "in-process DVC status"
    )
    compare("roads lineage of a claim", command("-m", "flows", "lineage", "main_gap"), status, "in-process DVC status")
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        prepare(project)
        steps(project)
        prices(project)
        stating(project)
        verifying(Path(folder) / "big")


if __name__ == "__main__":
    main()
