"""What is measured against what, a stage a file, and the clock they share."""
