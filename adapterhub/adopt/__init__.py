"""Taking over a machine that others worked on: walk.py finds folders, bases.py the bases,
look.py looks at one adapter (keys.py its tensors' names, weights.py their values, faults.py what is
wrong with them, guess.py its base), relations.py finds what is there twice, names.py proposes
names, survey.py puts it together, pipeline.py imports."""
