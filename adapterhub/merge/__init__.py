"""Merging: adapters in, one adapter out, module by module, without the base model.

`adapterhub.merge.pipeline.merge` runs a `adapterhub.merge.recipe.MergeRecipe`.
"""
