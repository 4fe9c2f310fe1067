"""Texts that tests let vLLM and transformers read."""

from data.marking import mark
from data.sets.synthetic import synthetic_questions

QUESTIONS = synthetic_questions(24, seed=5, split="train")
TEXTS = [mark(question.text, question.reference or "") for question in QUESTIONS]
