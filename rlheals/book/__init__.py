"""The book around the notebooks: executing them, generated pages, the claims page."""
