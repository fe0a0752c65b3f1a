"""The search for a merge that answers well: weights, scale, density, rule and space.

recipe.py says what is asked, rows.py which rows choose and which report, space.py what is
searched, scorer.py answers and scores, search.py searches, pipeline.py ties them together.
"""
