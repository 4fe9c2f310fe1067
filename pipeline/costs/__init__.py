"""What the work that is left would cost."""
