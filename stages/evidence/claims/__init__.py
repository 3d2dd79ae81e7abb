"""The verdicts on claims, from what studies have published."""
