"""Extensions of Sphinx that make the book's site: named in ``_config.yml``."""
