"""How far a stage has come, by its own words."""

import json

from flows.progress import Progress


def test_steps_and_their_rate_are_read_from_the_end_of_what_a_stage_says(tmp_path):
    path, progress = tmp_path / "online.jsonl", Progress()
    assert progress.told("online") == "", "nothing is known of no run"
    progress.events = lambda name: tmp_path / f"{name}.jsonl"
    assert progress.told("online") == "", "it has said nothing"
    events = [{"time": 1000.0 + step / 4, "step": step, "metrics": {"loss": 0.1 * step}} for step in range(0, 2000, 20)]
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert progress.told("online") == "1,980, 4.0 per second"
    with path.open("a") as file:
        file.write('{"time": 99999.0, "step": 20')  # it writes just now
    assert progress.told("online") == "1,980, 4.0 per second"
    slow = [{"time": 1000.0 + 30 * step, "step": step, "metrics": {}} for step in (0, 2, 2, 3)]
    path.write_text("".join(json.dumps(event) + "\n" for event in slow))
    assert progress.told("online") == "3, 30.0 s each"
    path.write_text(json.dumps({"time": 1.0, "step": 0, "metrics": {}}) + "\n" + json.dumps({"step": None}) + "\n")
    assert progress.told("online") == "0"
