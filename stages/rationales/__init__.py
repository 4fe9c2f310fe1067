"""Stage one, first half: the teacher's rationales, asked for, judged and kept."""
