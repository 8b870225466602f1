"""Many runs of one question: compare, search, scale."""
