"""How results came to be, on which platform and at which commit, and what git says of claims."""
