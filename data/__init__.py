"""Text only: questions, rationales, prompts, answers, reasoning steps and critical words as character spans."""
