"""Attention out of vLLM itself: what runs in its workers, what asks them, and the pass that stores what comes out."""
