"""Stage two: one student trained from the cache, the teacher out of memory."""
