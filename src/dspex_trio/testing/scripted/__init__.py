"""Language models, tools and stores that do what a script says."""
