"""What a person at the terminal, a log file and a shell get to see: lines, bars, tables, exit codes."""
