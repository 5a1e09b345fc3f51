"""Check on an account whether the API is as this project reads it: what is requested, and the assumptions."""
