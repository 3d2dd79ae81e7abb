"""Damaged, swapped and forged files: the right result, or a refusal that names the file; and nothing is written, read
or removed outside of the project."""

import pytest
from soak.attacks import BYTES, JUNK, LOCK, OUT, WRITTEN, another_out_and_no_runs, carry_out

pytest_plugins = "soak.fixtures"
BELIEVED = pytest.mark.xfail(strict=True, reason="dvc.lock is the record; statements tell (test_statements.py)")


@pytest.mark.parametrize(
    "attack",
    [*LOCK, *JUNK, *WRITTEN, *OUT, *BYTES, pytest.param(another_out_and_no_runs, marks=BELIEVED)],
    ids=lambda attack: attack.__name__,
)
def test_an_attack_ends_in_the_right_result_or_a_refusal(attack, forks, made, tmp_path, record_property):
    record_property("outcome", carry_out(attack, forks, made, tmp_path))
