"""Engines that generate text: one contract, an implementation a file, and the one place that starts them."""
