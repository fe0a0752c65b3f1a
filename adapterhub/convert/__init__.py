"""Converting: an adapter of any method becomes a plain LoRA, and the error is measured.

`adapterhub.convert.pipeline.convert` runs a `adapterhub.convert.recipe.ConvertRecipe`.
"""
