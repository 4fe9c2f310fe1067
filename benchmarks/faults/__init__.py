"""What stores and the rationale stage survive: kills, flipped bits, damaged files, full disks, clocks, signals.

In: nothing but options. Out: counts, and exit code 1 as soon as a committed record is lost, a wrong one is served, or a
teacher is asked too often. The tests run the same functions with smaller numbers (tests/cache/test_faults.py,
tests/test_rationale_faults.py).

A store, of attention and soft labels (zarr) and of rationales (Parquet) alike, whose records follow from a number, so
that any process can tell whether what is served is true (records.py, writers.py):

- **kills** (kills.py): three writers on one space, each killed with SIGKILL at random moments and restarted at once.
  They choose records at random and so compute many of them twice. Every append that had returned is an acknowledged
  one; `lost` counts acknowledged records that cannot be read, `wrong` those that are not the true ones. Every second
  round runs as if the file system knew no hard links. In the end the missing records are computed, and all have to be
  there.
- **flips** (damage.py): one random bit of one random file; everything is read. `detected` is an error of ours,
  `harmless` that all records are equal, `hidden` that one is missing without a word, `crash` an exception that is none
  of ours.
- **damage** (damage.py): every file of a store in turn truncated, zeroed, emptied, extended, deleted. A commit that is
  deleted or emptied hides its part (nothing else says that it was there); these are the only ones allowed to, and the
  next run computes the records again.
- **readers** beside writers, the **same** records by two writers at once, **stops** by SIGTERM, **clocks** that are
  wrong (side_by_side.py).
- **full disk**: a small tmpfs of our own (small_disk.py), full at every possible moment of an append (full_disk.py);
  and under `molsaki` (full_disk_command.py).

The rationale stage, which is the real `molsaki rationales` in a process of its own (experiment.py, stage.py). Only its
engine is made up (teacher.py): it is slow, says to each prompt what follows from the prompt alone, so that a finished
store can be compared with that of a run that nobody disturbed, and notes each prompt that it answers:

- **kills**: SIGKILL at random moments, while the stage starts or in the middle of its work, and the same command again.
  In the end every attempt has to be there, equal to that of the undisturbed run, and stored once. For each kill in the
  middle at most one piece is asked again.
- **same**: two jobs that ask the same questions at once; both end well, and each attempt is served once.
- **full disk**: the store on a small tmpfs, which fills up in the middle; one line says so, and the same command goes
  on after space was made.

    python -m benchmarks.faults --kills 200 --flips 1000
    python -m benchmarks.faults --kind rationales --kills 20 --flips 100 --json
    python -m benchmarks.faults --kind stage --questions 2000 --stage-kills 20
"""
