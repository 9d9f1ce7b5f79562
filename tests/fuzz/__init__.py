"""Damage at random, the same for the same number: nothing that vaectl reads may crash it or hang it."""
