"""Many random faults: kills, broken files, faulty servers, two of everything and full disks.

`make torture` runs all of them; `test_torture.py` runs a few of each with the other tests. Each part is a function that
takes the number of cases, a seed and an empty folder, and returns one line of counts. It fails with an AssertionError
that has what is needed to repeat the case.
"""
