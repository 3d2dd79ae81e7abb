"""The paper's theory, exact: policies and rewards on trees small enough to enumerate."""
