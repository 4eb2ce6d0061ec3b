"""The page: one module a tab, over the same functions as the command line."""
