"""Numbers that figures and tables show: shares of attention, curves, statistics. No torch."""
