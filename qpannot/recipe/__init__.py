"""Recipes: one validated YAML file holds every number of the method, with its unit."""

from qpannot.recipe.loading import builtin_recipes, load_recipe
from qpannot.recipe.settings import Recipe, TissueSettings

__all__ = ["Recipe", "TissueSettings", "builtin_recipes", "load_recipe"]
