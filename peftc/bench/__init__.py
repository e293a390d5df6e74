"""`peftc bench`: what methods cost, beside what others make of the same."""
