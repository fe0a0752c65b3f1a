"""Taking over a machine that others worked on: walk.py finds adapters and bases below folders,
weights.py and faults.py look at one adapter, guess.py infers its base, relations.py finds what is
there twice, names.py proposes names, survey.py puts it together, pipeline.py imports."""
