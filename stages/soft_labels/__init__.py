"""Soft labels: what the teacher holds possible at each place of a rationale, as rows that are stored and learned from.

In: a teacher and texts. Out: rows of a distribution (`rows`, `teacher`); of these and a student's logits a divergence
(`divergences`, on a `normaliser`), or, where the two have different tokenizers, one over pieces of text (`pieces`).
Whether they have the same is what `vocabulary` says.
"""
