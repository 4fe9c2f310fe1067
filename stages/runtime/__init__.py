"""What every stage runs on: progress and stopping, shards, pieces, devices, and processes that work together."""
