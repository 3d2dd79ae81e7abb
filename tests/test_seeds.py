"""Random numbers: each belongs to one purpose and one item."""

import ast

import numpy as np
import pytest
from conftest import ROOT
from scipy.stats import kstest

from stages.records.seeds import PURPOSES, Uniforms, generator, key, order

DRAWING = {"key", "generator", "keyed", "order", "Uniforms"}  # keyed: generator, as statistics.py calls it
ITEMIZED = {"theory", "dial"}  # asked for in several places, with items that begin otherwise
ROLES = {"roles"}  # a prompt or a group has one, never both in one setting


def purposes() -> list[str]:
    """The purpose of every call in stages/ that asks for random numbers."""
    found = []
    for path in (ROOT / "stages").rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "stages.records.seeds"
            for alias in node.names
        }
        assert names <= DRAWING, path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno} names no purpose"
                found.append(node.args[0].value)
    return found


def test_every_purpose_is_served_in_one_place_so_that_no_two_things_share_a_key():
    found = purposes()
    assert set(found) == PURPOSES.keys() - {"test"}
    assert {purpose for purpose in found if found.count(purpose) > 1} == ITEMIZED | ROLES


@pytest.mark.parametrize("ask", [key, generator, Uniforms, lambda purpose: order(purpose, [1, 2])])
def test_an_unknown_purpose_is_refused(ask):
    with pytest.raises(ValueError, match="Nothing is drawn for 'luck': add it to PURPOSES"):
        ask("luck")


def test_keys_never_meet_by_accident():
    parts = [("ab", "c"), ("a", "bc"), ("abc",), (1,), ("1",), (1, 2), (12,), (None,), ("None",), (1.0,), (True,)]
    every = [(purpose, *p) for purpose in PURPOSES for p in [(), *parts, *((p, *parts[0]) for p in PURPOSES)]]
    assert len({key(*p) for p in every}) == len(every)


def test_an_order_keeps_those_that_were_there():
    ids = np.arange(50) * 3 + 2**51
    found = ids[order("test", ids, "a", 0)]
    assert sorted(found) == list(ids) and list(found) != list(ids)
    more = np.concatenate([np.arange(20), ids[::-1]])
    assert [i for i in more[order("test", more, "a", 0)] if i in ids] == list(found)
    assert list(ids[order("test", ids, "a", 1)]) != list(found)


def test_a_uniform_belongs_to_purpose_prompt_visit_completion_and_position_alone():
    ids, visits = [3, 2**52 - 1, 3, 0], [0, 5, 1, 0]
    whole = Uniforms("test", "a", 0)(ids, visits, 9, 11)
    assert whole.shape == (4, 9, 11) and len(np.unique(whole)) == whole.size
    assert np.array_equal(Uniforms("test", "a", 0)(ids[::-1], visits[::-1], 2, 5), whole[::-1, :2, :5])
    for other in (("test", "a", 1), ("test", "b", 0), ("pairs", "a", 0)):
        assert not np.isin(Uniforms(*other)(ids, visits, 9, 11), whole).any()
    assert whole.min() >= 0 and whole.max() < 1
    many = Uniforms("test", "even")(range(50), [0] * 50, 20, 10)
    for one_way in (many.ravel(), many[:, 0, 0], many[0, :, 0]):
        assert kstest(one_way, "uniform").pvalue > 1e-3
    flat = many - 0.5
    for axis in range(3):  # neighbours know nothing of each other
        a, b = np.moveaxis(flat, axis, 0)[:-1], np.moveaxis(flat, axis, 0)[1:]
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.05
