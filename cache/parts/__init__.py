"""What parts of arrays have in common, whatever lies in them: how they are read, judged, and told apart by kind."""
