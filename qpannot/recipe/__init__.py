"""Recipes: one validated YAML file holds every number of the method, with its unit."""

from qpannot.recipe.changing import change_recipe
from qpannot.recipe.loading import BASE, builtin_recipes, load_recipe, workflows_folder
from qpannot.recipe.settings import Recipe, TissueSettings

__all__ = [
    "BASE",
    "Recipe",
    "TissueSettings",
    "builtin_recipes",
    "change_recipe",
    "load_recipe",
    "workflows_folder",
]
