"""What is shown for evidence: statistics, figures, the report of a study, and the verdicts on claims."""
